"""The process that trains on one of several hosts: a rank of MPI, watched over by ``train.cluster``.

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
import traceback
from pathlib import Path

from train.failure import Failure
from train.job import run
from train.link import RANK_ERR, RANK_LINK, RANK_OUT, Message, encode
from train.metrics import JobLog
from train.mpi import HostsError, MpiHosts


def claim_streams() -> None:
    """Make the container's standard output and error this process's own."""
    os.dup2(RANK_OUT, 1)
    os.dup2(RANK_ERR, 2)


def take_part(base: Path, threads: int, memory: int, log: JobLog, *, checkpoint_folder: Path | None = None) -> int:
    """Run this host's part of the job below ``base``; return its exit code. The link tells of a failure."""
    link = socket.socket(fileno=RANK_LINK)
    link.sendall(encode(Message("started", number=os.getpid())))
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    try:
        hosts = MpiHosts.join()
        link.sendall(encode(Message("ready")))
        run(base, threads, memory, log, hosts, checkpoint_folder=checkpoint_folder)
        hosts.leave()
    except Exception as error:
        failure = Failure.of(error)
        if failure.is_defect:
            traceback.print_exc()
        certain = not isinstance(error, HostsError)
        link.sendall(encode(Message("failed", text=failure.reason, number=failure.exit_code, certain=certain)))
        return failure.exit_code
    link.sendall(encode(Message("done")))
    return 0


def _end_with(link: socket.socket) -> None:
    """Wait for the end of the process that watches over this one, and end at once, wherever the main thread is."""
    with contextlib.suppress(OSError):
        while link.recv(1024):
            pass
    os.kill(os.getpid(), signal.SIGKILL)
