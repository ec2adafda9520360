"""The parent of the process that trains on one of several hosts: it sees how that ends, and says so.

A process that is killed, as the system does it when memory runs out, can't give a reason, and MPICH's launcher, whose
child it would be, keeps to itself how it ended. So what the launcher starts divides while it is small: the child
trains, and the parent, the witness, waits. When the child has ended it tells the process that watches over the two, by
the child's own link and after all that the child has said.

What the launcher sends, it sends to the witness's process group, in which the child is too. A child that SIGKILL ended
while its witness lives was therefore not ended by the launcher.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from train.distributed.messages import RANK_LINK, Message, encode


def report_exit(descriptor: int = RANK_LINK) -> int | None:
    """Go on in a child of this process; here, wait for its end and tell of it.

    To be called before there are threads, and before much is imported: the witness stays as large as it is then.

    Parameters
    ----------
    descriptor
        The link to the process that watches over these two.

    Returns
    -------
    int | None
        None in the child. In the witness the exit code with which it shall end, as a shell would tell of the child: its
        own, or 128 and the number of the signal that ended it.
    """
    # No signal ends or disturbs the witness. The launcher has one, SIGUSR1, for all ranks when one of them is gone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    ended = Message("killed", number=-code) if code < 0 else Message("ended", number=code)
    # A message is sent as a whole, so this one follows no half of one that the child was at when it was killed.
    with socket.socket(fileno=descriptor) as link, contextlib.suppress(OSError):  # nobody may be there any more
        link.sendall(encode(ended))
    return 128 - code if code < 0 else code
