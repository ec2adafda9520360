from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans.formats.media_type import MediaType
from tests.unit.kmeans import oracle


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        ("Text/CSV", "text/csv", {}),
        ("  text/csv  ", "text/csv", {}),
        ("text/csv;label_size=0", "text/csv", {"label_size": "0"}),
        ("text/csv; label_size=0; charset=UTF-8", "text/csv", {"label_size": "0", "charset": "UTF-8"}),
        ("text/csv ; Label_Size = 0 ", "text/csv", {"label_size": "0"}),
        ('text/csv; charset="utf-8"', "text/csv", {"charset": "utf-8"}),
        ("text/csv;", "text/csv", {}),
        ("text/csv; header", "text/csv", {}),
        ("text/csv; a=b=c", "text/csv", {"a": "b=c"}),
        ("application/x-recordio-protobuf", "application/x-recordio-protobuf", {}),
        ("", "", {}),
        (None, "", {}),
        ("nonsense", "nonsense", {}),
        ("; a=b", "", {"a": "b"}),
    ],
)
def test_a_header_is_read_into_a_name_and_parameters(text: str | None, name: str, parameters: dict[str, str]) -> None:
    assert MediaType.parse(text) == MediaType(name, parameters)


@oracle.PROPERTY
@given(st.text(max_size=60))
def test_any_header_is_read_without_an_error(text: str) -> None:
    media_type = MediaType.parse(text)
    assert media_type.name == media_type.name.strip()
