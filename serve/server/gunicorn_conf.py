"""gunicorn's settings that are the same on every machine, each with its reason.

``serve/server/application.py`` reads this file and adds the settings that depend on the machine and the environment:
port, worker class, number of workers and threads. Names and meanings: https://gunicorn.org/reference/settings/
"""

import os

from gunicorn.workers.base import Worker

# The model is read and checked once, before the port opens: a broken model is one clear message and an exit, not a
# failure per worker, and the workers share its memory.
preload_app = True

# The SageMaker router reuses its connections. 65 s is longer than a router's usual idle timeout of 60 s, so the server
# never closes a connection on which a request is on its way.
keepalive = 65

# Connections of a worker, idle ones included; beyond that a new one replaces the one that has been idle longest.
# serve/server/application.py lowers the number where a process may open fewer files.
worker_connections = 1000

# SageMaker kills 30 s after SIGTERM: requests in progress have 25 s to end, the shutdown itself has the rest.
graceful_timeout = 25

# For threaded workers this limits the time between two heartbeats of the main loop, which sends one each second, not
# the time of a request: a request of an hour, as asynchronous endpoints allow, is answered.
timeout = 65

# Restarts would hide a memory leak that a test should find, and cost latency.
max_requests = 0


def worker_int(worker: Worker) -> None:
    """End the worker at SIGINT and SIGQUIT: gunicorn's own exit waits for threads that serve slow clients."""
    os._exit(0)


# The folder of the heartbeat files: fchmod on a disk can block a worker, and the root file system may be read-only.
# /dev/shm is memory, and Docker mounts it even then. None selects gunicorn's default, the folder for temporary files.
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - tested before it is used; gunicorn creates the files there with mkstemp
worker_tmp_dir = (
    _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None
)

# By default gunicorn opens a control socket in the home directory: the server does not use it, and the home directory
# may not be writable.
control_socket_disable = True

# The application writes one line per request, with the model's figures. A second log would only repeat it.
accesslog = None

# Limits on what a client may send before the application sees the request. The longest legal header is
# X-Amzn-SageMaker-Custom-Attributes with 1024 characters; the paths are short.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# In WSGI a header name with an underscore could be mistaken for another header: drop it.
header_map = "drop"
