"""Messages over a socket: encoded, decoded, sent, received and refused."""

import socket
from collections.abc import Iterator

import pytest

from train.distributed.messages import MAX_LINE, MAX_TEXT, Message, MessageError, MessageSocket, decode, encode


@pytest.fixture
def ends() -> Iterator[tuple[MessageSocket, socket.socket]]:
    """A message socket, and the plain socket at its other end."""
    ours, theirs = socket.socketpair()
    connection = MessageSocket(ours)
    yield connection, theirs
    connection.close()
    theirs.close()


@pytest.mark.parametrize(
    "message",
    [
        Message("alive"),
        Message("hello", host="algo-1", text="1.0"),
        Message("failed", text="caf\u00e9 \n \U0001f600", number=143, certain=False),
        Message("failed", text="\x00" * MAX_TEXT),
        Message("killed", number=9),
        Message("ended", number=255),
    ],
)
def test_message_arrives_unchanged(ends: tuple[MessageSocket, socket.socket], message: Message) -> None:
    connection, other = ends
    other.sendall(encode(message) + encode(Message("alive")))
    assert connection.receive() == [message, Message("alive")]
    assert connection.receive() == []


def test_name_that_utf8_cannot_encode_is_sent_with_placeholder() -> None:
    assert decode(encode(Message("failed", text="\udcff.csv is wrong."))).text == "?.csv is wrong."


def test_message_may_arrive_byte_by_byte(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    line = encode(Message("go", number=10000))
    for byte in line[:-1]:
        other.sendall(bytes([byte]))
        assert connection.receive() == []
    other.sendall(line[-1:])
    assert connection.receive() == [Message("go", number=10000)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1",
        b"[]",
        b'{"kind": "run"}',
        b'{"kind": ["alive"]}',
        b'{"host": "algo-1"}',
        b'{"kind": "alive", "command": "ls"}',
        b'{"kind": "go", "number": "10000"}',
        b'{"kind": "go", "number": 1e3}',
        b'{"kind": "go", "number": true}',
        b'{"kind": "go", "number": -1}',
        b'{"kind": "go", "number": 123456789012}',
        b'{"kind": "failed", "text": "' + b"x" * (MAX_TEXT + 1) + b'"}',
        b'{"kind": "hello", "host": "' + b"x" * 254 + b'"}',
    ],
)
def test_bytes_that_are_not_a_message_are_refused(line: bytes) -> None:
    with pytest.raises(MessageError, match="expected a message"):
        decode(line)


def test_a_line_without_end_is_refused(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    other.sendall(b" " * (MAX_LINE + 1))
    with pytest.raises(MessageError, match=f"at most {MAX_LINE} bytes"):
        connection.receive()


def test_end_of_connection_follows_the_last_message(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    other.sendall(encode(Message("done")))
    other.close()
    assert connection.receive() == [Message("done")]
    with pytest.raises(MessageError, match="closed"):
        connection.receive()


def test_message_that_would_block_is_sent_later(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    message, sent = Message("failed", text="x" * MAX_TEXT), 1000
    for _ in range(sent):
        connection.send(message)
    receiver, came = MessageSocket(other), 0
    while came < sent:
        connection.flush()
        came += len(receiver.receive())
    assert receiver.receive() == []


def test_closed_connection_is_detected_by_receive(ends: tuple[MessageSocket, socket.socket]) -> None:
    connection, other = ends
    other.close()
    connection.send(Message("alive"))
    connection.finish()
    with pytest.raises(MessageError):
        connection.receive()
