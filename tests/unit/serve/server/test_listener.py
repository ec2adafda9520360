"""What real signals hit only by chance: a client that connects while the port is being closed."""

import socket
import sys

import pytest

from serve.server.listener import open_port, reject_new_connections

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can leave connections unanswered")


def test_established_connection_survives_rejecting_new_ones() -> None:
    with open_port(0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            assert reject_new_connections(listener)
            for address in ("127.0.0.1", "localhost"):
                # No answer at all, neither a connection nor a refusal: the client's system goes on trying.
                with pytest.raises(TimeoutError):
                    socket.create_connection((address, port), timeout=0.2)
            client.sendall(b"a request")
            listener.settimeout(10)
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"a request"
                connection.sendall(b"its answer")
                assert client.recv(100) == b"its answer"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_rejecting_on_a_closed_listener_returns_false() -> None:
    with open_port(0) as listener:
        listener.close()
        assert not reject_new_connections(listener)
