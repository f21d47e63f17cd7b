"""The routes: each parses, calls one function, and maps the answer."""
