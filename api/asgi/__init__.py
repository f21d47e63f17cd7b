"""Below the routes: request ids, errors as problems, JSON responses, the OpenAPI document, uvicorn."""
