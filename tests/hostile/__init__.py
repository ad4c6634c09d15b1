"""What a stranger may hand over: hostile files, and probes that say whether the program holds."""
