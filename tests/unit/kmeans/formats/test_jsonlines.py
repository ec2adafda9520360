"""What JSON Lines has of its own; the shapes of instances are tested with JSON's."""

from __future__ import annotations

import pytest

from kmeans.errors import DataError
from kmeans.formats import jsonlines


@pytest.mark.parametrize(
    "data",
    [
        b'{"features": [1, 2]}\n{"features": [3, 4]}',
        b'{"features": [1, 2]}\n{"features": [3, 4]}\n',
        b'{"features": [1, 2]}\r\n{"features": [3, 4]}\r\n',
        b'\n\n{"features": [1, 2]}\n  \n{"features": [3, 4]}\n\n',
        b"[1, 2]\n[3, 4]",
    ],
)
def test_every_line_is_an_instance(data: bytes) -> None:
    assert jsonlines.decode(data).points.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n  \n"])
def test_nothing_is_refused_as_nothing(data: bytes) -> None:
    with pytest.raises(DataError, match=r"found none\. Is the file or the request empty"):
        jsonlines.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[1, 2]\n[3, 4]\n[5,\n",
        b"[1, 2]\n[3, 4]\n[5, 6] [7, 8]",
        b"[1, 2]\n[3, 4]\n[5, 6], [7, 8]",
        b"[1, 2]\n[3, 4]\n1, 2",
        b"[1, 2]\n[3, 4]\n[NaN, 1]",
        b'[1, 2]\n[3, 4]\n{"features": [5,\n6]}',
        b"[1, 2]\n\n[3, 4]\n\nnonsense",
    ],
)
def test_a_line_that_is_no_json_is_refused_with_its_row(data: bytes) -> None:
    with pytest.raises(DataError, match="row 3: expected a JSON object, but ") as raised:
        jsonlines.decode(data)
    assert raised.value.row == 3


def test_lines_that_are_json_only_together_are_refused() -> None:
    with pytest.raises(DataError, match="row 1"):
        jsonlines.decode(b"[1\n2],[3, 4]")
