"""Attribute edits: the StyleFlow between w and z, its training, labels, edited latents and photographs."""
