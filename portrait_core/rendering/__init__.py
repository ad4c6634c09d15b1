"""Pictures of the clip: rendering at the wanted poses, compositing, and the photograph around the head."""
