"""The process that trains on one of several hosts: a rank of MPI, watched over by ``train.distributed.supervisor``.

MPI's launcher starts it and takes its standard streams, so that a worker's lines would appear in the leader's log. It
therefore gets those of its container, and its link to the process that watches over it, as descriptors of fixed
numbers: what starts it comes from the leader and is the same on all hosts.
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

from train.distributed.messages import RANK_ERR, RANK_LINK, RANK_OUT, Message, encode
from train.distributed.mpi import HostsError, MpiCollectives
from train.distributed.supervisor import Deadlines
from train.failure import Failure
from train.job import TrainingJob
from train.metrics import JobLog


def claim_streams() -> None:
    """Make the container's standard output and error this process's own."""
    os.dup2(RANK_OUT, 1)
    os.dup2(RANK_ERR, 2)


def run_rank(base: Path, threads: int, memory: int, log: JobLog, *, checkpoint_folder: Path | None = None) -> int:
    """Run this host's part of the job below ``base``; return its exit code. The link tells of a failure."""
    link = RankLink(socket.socket(fileno=RANK_LINK))
    link.tell(Message("started", number=os.getpid()))
    for work in (link.wait_for_its_end, link.stay_alive):
        threading.Thread(target=work, daemon=True).start()
    try:
        hosts = MpiCollectives.join()
        link.tell(Message("ready"))
        TrainingJob(
            base,
            threads,
            memory,
            log,
            hosts,
            checkpoint_folder=checkpoint_folder,
            on_written=lambda: link.tell(Message("written")),
        ).run()
        hosts.leave()
    except Exception as error:
        failure = Failure.of(error)
        if failure.is_defect:
            traceback.print_exc()
        certain = not isinstance(error, HostsError)
        link.tell(Message("failed", text=failure.reason, number=failure.exit_code, certain=certain))
        return failure.exit_code
    link.tell(Message("done"))
    return 0


class RankLink:
    """The end of the link in the process that trains, whose threads share it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def tell(self, message: Message) -> None:
        """Send ``message``."""
        with self._lock:
            self._connection.sendall(encode(message))

    def stay_alive(self) -> None:
        """Send a sign of life again and again; a process that stands still sends none."""
        with contextlib.suppress(OSError):
            while True:
                self.tell(Message("alive"))
                time.sleep(Deadlines().heartbeat)

    def wait_for_its_end(self) -> None:
        """Wait for the end of the process that watches over this one, and end at once, wherever the main thread is."""
        with contextlib.suppress(OSError):
            while self._connection.recv(1024):
                pass
        os.kill(os.getpid(), signal.SIGKILL)
