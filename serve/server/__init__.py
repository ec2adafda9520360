"""The HTTP server: gunicorn, its configuration and what this project changes in it. The only importer of gunicorn."""
