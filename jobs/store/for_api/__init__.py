"""The API's side of the store, on asyncio: submit, read, and the connections that concurrent callers share."""
