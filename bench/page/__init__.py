"""What the page at / costs the browser."""
