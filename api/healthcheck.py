"""The container's health check: exits with 0 if the API is ready. Imports the standard library only, to be fast."""

import os
import sys
import urllib.error
import urllib.request

if __name__ == "__main__":
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/readyz", timeout=3)
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"not ready: {error}")
