"""The command line ``portrait``: one module per group of commands, and how every command ends."""
