"""The list of formats: names, first bytes, and no name twice."""

from __future__ import annotations

import pytest

from kmeans.formats import csv, jsonlines, npy, recordio
from kmeans.formats.format import Format
from kmeans.formats.media_type import MediaType
from kmeans.formats.registry import FORMATS, Registry


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("csv", "text/csv"),
        ("application/csv", "text/csv"),
        ("application/jsonl", "application/jsonlines"),
        ("application/x-jsonlines", "application/jsonlines"),
        ("application/x-ndjson", "application/jsonlines"),
        ("X-RecordIO-Protobuf", "application/x-recordio-protobuf"),
    ],
)
def test_an_alias_is_read_as_the_usual_name(alias: str, name: str) -> None:
    form = FORMATS.find(MediaType.parse(f"{alias}; label_size=0").name)
    assert form is not None
    assert form.media_type == name


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (recordio.FORMAT.magic + b"\0", recordio.FORMAT),
        (npy.FORMAT.magic + b"\1\0", npy.FORMAT),
        (b'\n {"features": [1]}', jsonlines.FORMAT),
        (b"[1, 2]", jsonlines.FORMAT),
        (b"1,2\n", csv.FORMAT),
        (b"1,2\0", None),
    ],
)
def test_detect_first_bytes_name_the_format(head: bytes, form: Format | None) -> None:
    assert FORMATS.detect(head) is form


@pytest.mark.parametrize("taken", ["text/csv", "csv"])
def test_register_name_twice_is_refused(taken: str) -> None:
    registry = Registry([csv.FORMAT])
    with pytest.raises(ValueError, match=f"the media type {taken} is already registered"):
        registry.register(Format(media_type="application/x-other", name="Other", aliases=(taken,)))
    assert registry.find("application/x-other") is None
