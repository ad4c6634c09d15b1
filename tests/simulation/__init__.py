"""The real flow, runners and store around stages that sleep instead of computing."""
