"""Where generation happens, one module a backend."""
