"""What real signals hit only by chance: a client that connects while the port is being closed."""

import socket
import sys

import pytest

from serve.server.listener import open_port, reject_new_connections

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can leave connections unanswered")


def test_who_is_connected_is_served_and_who_comes_later_is_not_let_in() -> None:
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


def test_where_the_system_refuses_it_says_so() -> None:
    with open_port(0) as listener:
        listener.close()
        assert not reject_new_connections(listener)
