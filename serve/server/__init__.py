"""The HTTP server: gunicorn, its configuration and the project's extensions. The only importer of gunicorn."""
