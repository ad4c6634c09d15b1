"""Face landmarks, head pose and expression of portraits and driving frames."""
