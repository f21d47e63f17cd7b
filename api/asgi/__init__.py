"""HTTP below the routes: parameters, request ids, problems, JSON responses, the OpenAPI document, uvicorn."""
