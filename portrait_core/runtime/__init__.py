"""State of this process: files of the program, caches, memory, loaded models, and requests to stop."""
