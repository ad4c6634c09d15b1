"""Health check of containers, whose images have no curl: ``healthy.py URL`` ends with 0 if URL answers."""

import sys
import urllib.request

if __name__ == "__main__":
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5).close()
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
