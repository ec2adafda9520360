from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kmeans.ranges import Choice, Integer, Real
from kmeans.settings import RANGES, Settings

METHOD = Choice(("random", "kmeans++"), {"k-means++": "kmeans++"})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Integer(1), 3, 3),
        (Integer(1), np.int32(3), 3),
        (Integer(1), np.array(3), 3),
        (Integer(0), 0, 0),
        (Integer(0), (1 << 63) - 1, (1 << 63) - 1),
        (Integer(1, auto=True), None, None),
        (Integer(1, auto=True), "auto", None),
        (Real(0, 1), 1, 1.0),
        (Real(0, 1), np.float32(0.5), 0.5),
        (METHOD, "K-Means++", "kmeans++"),
    ],
)
def test_checked_value_has_its_type_in_python(kind: Any, value: object, expected: object) -> None:
    found = kind.checked(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Integer(1), 0),
        (Integer(1), None),
        (Integer(1), "auto"),
        (Integer(1), 1.0),
        (Integer(1), "3"),
        (Integer(1), True),
        (Integer(1), np.array([3])),
        (Integer(0), 1 << 63),
        (Integer(1, auto=True), np.zeros(2)),
        (Real(0, 1), 1.5),
        (Real(0, 1), float("nan")),
        (Real(0, 1), "0.5"),
        (Real(0, 1), True),
        (Real(0, 1), None),
        (METHOD, "best"),
        (METHOD, 3),
        (METHOD, None),
    ],
)
def test_checked_refuses_other_values(kind: Any, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it has no message
        kind.checked(value)


def test_every_setting_has_a_range() -> None:
    assert [field.name for field in dataclasses.fields(Settings)] == list(RANGES)


def test_settings_can_be_copied_and_replaced() -> None:
    changed = dataclasses.replace(Settings(k=3), seed=np.int64(4))  # type: ignore[arg-type]
    assert changed == Settings(k=3, seed=4)
    assert type(changed.seed) is int
