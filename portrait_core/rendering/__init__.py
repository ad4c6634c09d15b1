"""From renders to pictures: what is carried, moved and laid back into the photograph."""
