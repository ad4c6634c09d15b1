"""Access to portraits, videos and tables on this machine and elsewhere, copies, and cached facts."""
