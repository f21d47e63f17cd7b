"""The routes: each reads its parameters, calls a service and presents the result."""
