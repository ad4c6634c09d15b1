"""The process itself: where its files lie, its memory, threads, loaded models, and being stopped."""
