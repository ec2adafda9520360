"""A rank of MPI: the process that trains on one of several hosts, watched by :mod:`train.distributed.supervisor`.

MPI's launcher starts it and takes its standard streams, which would bring a follower's lines into the leader's log.
Therefore it inherits those of its container, and its socket to the supervisor, as descriptors with fixed numbers: the
command that starts it comes from the leader and is the same on all hosts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import traceback
from pathlib import Path

from train.distributed.messages import RANK_ERR, RANK_OUT, RANK_SOCKET, Message, encode
from train.distributed.mpi import HostsError, MpiCollectives
from train.distributed.supervisor import Deadlines
from train.failure import Failure
from train.job import TrainingJob
from train.metrics import JobLog


def claim_streams() -> None:
    """Replace this process's standard output and error by those of the container."""
    os.dup2(RANK_OUT, 1)
    os.dup2(RANK_ERR, 2)


def run_rank(base: Path, threads: int, memory: int, log: JobLog, *, checkpoint_folder: Path | None = None) -> int:
    """Run this host's part of the job below ``base``, report a failure to the supervisor, and return the exit code."""
    supervisor = SupervisorSocket(socket.socket(fileno=RANK_SOCKET))
    supervisor.send(Message("started", number=os.getpid()))
    for work in (supervisor.exit_with_supervisor, supervisor.send_heartbeats):
        threading.Thread(target=work, daemon=True).start()
    try:
        hosts = MpiCollectives.join()
        supervisor.send(Message("ready"))
        TrainingJob(
            base,
            threads,
            memory,
            log,
            hosts,
            checkpoint_folder=checkpoint_folder,
            on_written=lambda: supervisor.send(Message("written")),
        ).run()
        hosts.leave()
    except Exception as error:
        failure = Failure.of(error)
        if failure.is_defect:
            traceback.print_exc()
        certain = not isinstance(error, HostsError)
        supervisor.send(Message("failed", text=failure.reason, number=failure.exit_code, certain=certain))
        return failure.exit_code
    supervisor.send(Message("done"))
    return 0


class SupervisorSocket:
    """The rank's blocking socket to its supervisor, shared by the threads of the process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send ``message``."""
        with self._lock:
            self._connection.sendall(encode(message))

    def send_heartbeats(self) -> None:
        """Send heartbeats until the connection breaks; a process that is stopped sends none."""
        with contextlib.suppress(OSError):
            while True:
                self.send(Message("alive"))
                time.sleep(Deadlines().heartbeat)

    def exit_with_supervisor(self) -> None:
        """Wait until the supervisor ends, and then end this process at once, whatever its main thread does."""
        with contextlib.suppress(OSError):
            while self._connection.recv(1024):
                pass
        os.kill(os.getpid(), signal.SIGKILL)
