from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kmeans.threads import Interrupted, ThreadPool

any_team = pytest.mark.parametrize("threads", [1, 2, 3, 5])


@any_team
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    with ThreadPool(threads) as pool:
        assert list(pool.map(lambda n: n * n, range(100))) == [n * n for n in range(100)]


def test_results_keep_their_order_if_the_first_finishes_last() -> None:
    others_done = threading.Event()

    def task(item: int) -> int:
        if item == 0:
            assert others_done.wait(30)
        elif item == 2:
            others_done.set()
        return item

    with ThreadPool(2) as pool:
        assert list(pool.map(task, range(3))) == [0, 1, 2]


@any_team
def test_no_items_give_no_results(threads: int) -> None:
    with ThreadPool(threads) as pool:
        assert list(pool.map(str, [])) == []


@any_team
def test_an_exception_reaches_the_reader(threads: int) -> None:
    def task(item: int) -> int:
        if item == 7:
            raise KeyError("seven")
        return item

    with ThreadPool(threads) as pool:
        results = pool.map(task, range(20))
        assert [next(results) for _ in range(7)] == list(range(7))
        with pytest.raises(KeyError, match="seven"):
            next(results)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {threads}"):
        ThreadPool(threads)


def test_one_thread_is_the_calling_one() -> None:
    with ThreadPool() as pool:
        assert set(pool.map(lambda _: threading.get_ident(), range(5))) == {threading.get_ident()}


def test_several_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3)
    with ThreadPool(3) as pool:
        assert sorted(pool.map(lambda _: together.wait(30), range(3))) == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_requested_only_a_little_ahead(threads: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    with ThreadPool(threads) as pool:
        results = pool.map(lambda item: item, items())
        assert [next(results) for _ in range(10)] == list(range(10))
        assert len(taken) <= 10 + 2 * threads


def test_closed_pool_accepts_no_more_items() -> None:
    pool = ThreadPool(2)
    pool.close()
    with pytest.raises(RuntimeError):
        list(pool.map(str, [1]))


def test_pool_has_the_number_of_threads() -> None:
    with ThreadPool(4) as pool:
        assert pool.threads == 4


@any_team
def test_running_calls_the_function_once_for_each_item(threads: int) -> None:
    called: list[int] = []
    with ThreadPool(threads) as pool:
        pool.run(called.append, iter(range(100)))
    assert sorted(called) == list(range(100))


@any_team
def test_running_raises_what_the_function_raises(threads: int) -> None:
    def task(item: int) -> None:
        if item == 7:
            raise KeyError("seven")

    with ThreadPool(threads) as pool, pytest.raises(KeyError, match="seven"):
        pool.run(task, range(20))


def test_patience_is_counted_from_the_first_sight_of_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kmeans.threads.time.monotonic", lambda: now)
    stopped = False
    with ThreadPool(1, lambda: stopped) as pool:
        with pool.interruptible(patience=5):
            pool.check_stop()
            stopped = True
            pool.check_stop()
            now = 104.9
            assert list(pool.map(str, [1, 2])) == ["1", "2"]
        pool.check_stop()  # not where work isn't interruptible
        now = 105.0
        with pytest.raises(Interrupted), pool.interruptible(patience=5):
            pass
        now = 101.0
        with pytest.raises(Interrupted), pool.interruptible():
            pass
