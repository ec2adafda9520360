"""Large bodies take turns; a small one, or an impatient one, doesn't wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.semaphore import Semaphore

LIMIT_SECONDS = 20.0


@pytest.mark.parametrize("places", [1, 3])
def test_semaphore_admits_at_most_the_given_number(places: int) -> None:
    turns, lock = Semaphore(places, patience=LIMIT_SECONDS), threading.Lock()
    full = threading.Barrier(places)
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        with turns.taken():
            with lock:
                inside += 1
                most = max(most, inside)
            full.wait(LIMIT_SECONDS)  # all places are taken at the same time
            with lock:
                inside -= 1

    with ThreadPoolExecutor(2 * places) as threads:
        for done in [threads.submit(work) for _ in range(4 * places)]:
            done.result(LIMIT_SECONDS)
    assert most == places


def test_semaphore_is_released_after_an_error() -> None:
    turns = Semaphore(1, patience=LIMIT_SECONDS)
    with pytest.raises(ValueError, match="broken"), turns.taken():
        raise ValueError("broken")
    with turns.taken():
        pass


def test_semaphore_admits_after_the_patience_has_passed() -> None:
    turns = Semaphore(1, patience=0.01)
    with turns.taken(), turns.taken(), turns.taken():
        pass
