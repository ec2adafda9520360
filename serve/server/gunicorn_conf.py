"""The settings of gunicorn that are the same on every machine, each with its reason.

``serve/server/worker.py`` reads this file and adds what depends on the machine and on the environment: the port, the
class of the workers and their number, and threads. Names and meanings: https://gunicorn.org/reference/settings/
"""

import os

import gunicorn.http.wsgi
from gunicorn.workers.base import Worker

# The model is read and checked once, before the port opens: a broken model is one clear message and an exit, not a
# failure per worker, and the workers share its memory.
preload_app = True

# The SageMaker router reuses its connections; 65 s is longer than a router's usual 60 s of idleness, so that it is not
# the server that closes a connection under a request that is on its way.
keepalive = 65

# Connections of a worker, with those on which nobody says anything; a further one takes the place of the one that has
# been silent longest. serve/server/worker.py allows fewer where a process may not have so many files open.
worker_connections = 1000

# SageMaker kills 30 s after SIGTERM: requests in flight have 25 s to end, the rest is for the shutdown itself.
graceful_timeout = 25

# For threaded workers this is the heartbeat of the process, which its main loop gives each second, and no limit of a
# request: one of an hour, as asynchronous endpoints allow, is answered.
timeout = 65

# A memory leak is to be found by a test, not hidden by restarts, which would cost latency.
max_requests = 0


def worker_int(worker: Worker) -> None:
    """End the worker at SIGINT and SIGQUIT: gunicorn's own way waits for threads that slow clients hold."""
    os._exit(0)


# The heartbeat files: fchmod on a disk can block a worker, and the root file system may be read-only. /dev/shm is
# memory, and Docker mounts it even then. None is gunicorn's default, the machine's folder for temporary files.
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - tested before it is used; gunicorn creates the files there with mkstemp
worker_tmp_dir = (
    _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None
)

# gunicorn opens a control socket in the home directory by default: nobody uses it, and the home may not be writable.
control_socket_disable = True

# The application writes one line per request, with the model's own figures. A second log would only repeat it.
accesslog = None

# Limits on what a client may send before the application sees the request. The longest legal header is
# X-Amzn-SageMaker-Custom-Attributes with 1024 characters; the paths are short.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190

# Header names with an underscore could pass for another header after the translation for WSGI: drop them.
header_map = "drop"

# gunicorn has no setting for the Server header. A client doesn't need to know which software to attack.
gunicorn.http.wsgi.SERVER = "kmeans"
