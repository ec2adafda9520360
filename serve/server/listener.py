"""The port: opened on all addresses, and closed without losing an established connection."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

from kmeans.errors import ResourceError

# Established connections that may wait until a worker accepts them.
BACKLOG = 2048

# Errors of the system if IPv6 is built in, but disabled.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

# Linux' number of the option, which Python does not name, and its BPF program, as (code, jump if true, jump if false,
# operand): load byte 13 of the TCP header, the flags; accept the packet if SYN is not set, drop it otherwise.
_SO_ATTACH_FILTER = 26
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 1, 0, 0x02), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))


def open_port(port: int) -> socket.socket:
    """Return a socket that listens on all addresses, including IPv6 where the system has it.

    Raises
    ------
    kmeans.errors.ResourceError
        If the port is taken or not permitted.
    """
    try:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise
        return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    except OSError as error:
        raise ResourceError(f"Port {port} can't be opened: {os.strerror(error.errno or 0)}.") from None


def reject_new_connections(listener: socket.socket) -> bool:
    """Reject new connections to ``listener`` in all processes that share it; return whether the system can do that.

    Established connections, and handshakes in progress, still arrive. A new client gets no answer and tries again a
    second later, when the port is closed. Closing the port at once would reset connections that the system accepted
    after the last call of ``accept``. This can't be undone. Linux supports it, without privileges.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
    except OSError:
        return False
    return True
