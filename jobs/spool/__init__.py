"""Where the bytes of large chunks lie outside Redis: `UPLOADS_URL`. Knows no Redis: the store has pointers to it."""
