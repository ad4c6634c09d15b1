"""The command line ``portrait``: one module per group of commands."""
