"""The targets of the fuzzer, on their own first inputs and on damaged ones: `make fuzz` in little."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.unit.kmeans import oracle

# Each input of this one makes and removes folders.
FEWER = {"model_archive": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_inputs_hold(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_hold(name: str) -> None:
    target = TARGETS[name]

    @settings(oracle.PROPERTY, max_examples=FEWER.get(name, 300))
    @given(oracle.damaged(target.seeds()) | st.binary(max_size=60))
    def check(data: bytes) -> None:
        target.check(data)

    check()
