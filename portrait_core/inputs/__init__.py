"""Portraits, videos and tables wherever they lie: reaching them, copies, what is known of them."""
