"""The parent of a rank's process on one of several hosts: it reports how that process ended.

A process that is killed, for example because memory runs out, can't give a reason, and MPICH's launcher does not report
how its children ended. Therefore the process that the launcher starts forks while it is small: the child trains, and
the parent, the exit reporter, waits for its end and reports it to the supervisor over the child's own socket, after
all messages of the child.

The launcher sends its signals to the exit reporter's process group, which includes the child. If SIGKILL ended the
child while its exit reporter lives, the launcher did therefore not send it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from train.distributed.messages import RANK_SOCKET, Message, encode


def report_exit(descriptor: int = RANK_SOCKET) -> int | None:
    """Fork; return None in the child, and in the parent report the child's exit.

    Call it before threads are started and before large modules are imported, which would stay in the parent's memory.

    Parameters
    ----------
    descriptor
        The socket to the supervisor.

    Returns
    -------
    int | None
        None in the child. In the exit reporter, the exit code with which it must end, as a shell reports a child: the
        child's, or 128 plus the number of the signal that ended it.
    """
    # No signal may end or disturb the exit reporter. The launcher sends SIGUSR1 to all ranks when one has ended.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    ended = Message("killed", number=-code) if code < 0 else Message("ended", number=code)
    # Messages are sent as a whole: this one can't follow half a message of a child that was killed while it sent.
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError):  # the supervisor may have ended
        connection.sendall(encode(ended))
    return 128 - code if code < 0 else code
