"""Text that leaves the program: without secrets, and without characters that a terminal or a page obeys."""
