"""The catalog of a multi-model server: what many threads may do with it at once, and what it refuses."""

import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.errors import ModelError
from kmeans.model import KMeansModel
from serve.multi_model.registry import (
    AlreadyLoadedError,
    Entry,
    NoRoomError,
    NotLoadedError,
    Registry,
    StillInUseError,
    budget,
)

MEGABYTE = 1 << 20
SECONDS = 30  # for what must happen at once: it ends a test that hangs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def catalog(root: Path) -> Registry:
    return Registry(root, 100 * MEGABYTE)


@pytest.fixture
def save(root: Path) -> Callable[..., str]:
    def save(place: str, clusters: int = 2, features: int = 3) -> str:
        """Write a model and return its url; ``clusters`` is what tells one from another."""
        centers = np.arange(clusters * features, dtype=np.float32).reshape(clusters, features)
        (root / place).mkdir(parents=True)
        artifact.save(KMeansModel(centers), root / place)
        return str(root / place)

    return save


class Gate:
    """Stands in for reading a model: whoever comes is noticed, and waits until the gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Semaphore(0)
        self._opened = threading.Event()
        self._load = artifact.load
        monkeypatch.setattr(artifact, "load", self._wait_and_load)

    def _wait_and_load(self, directory: Path) -> KMeansModel:
        self.reached.release()
        assert self._opened.wait(SECONDS)
        return self._load(directory)

    def wait_for_one(self) -> None:
        assert self.reached.acquire(timeout=SECONDS)

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._opened.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def threads() -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def outcome(future: "Future[object]") -> object:
    """Return a result, or the type of the error."""
    error = future.exception(SECONDS)
    return type(error) if error else future.result()


# ---- one after another ---------------------------------------------------------------------------------------------


def test_loaded_model_is_found_by_its_name(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("a1b2/model", clusters=5)
    assert catalog.load("a1b2", url) == Entry("a1b2", url)
    assert catalog.get("a1b2").clusters == 5
    assert catalog.entry("a1b2") == Entry("a1b2", url)
    assert catalog.page(10).entries == [Entry("a1b2", url)]


def test_one_folder_can_be_loaded_under_two_names(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("shared")
    catalog.load("one", url)
    catalog.load("two", url)
    catalog.unload("one")
    assert catalog.get("two").clusters == 2


def test_model_in_the_subfolder_model_is_loaded(catalog: Registry, root: Path, save: Callable[..., str]) -> None:
    save("x/model", clusters=4)
    catalog.load("x", str(root / "x"))
    assert catalog.get("x").clusters == 4


def test_files_in_the_folder_take_precedence_over_subfolder(
    catalog: Registry, root: Path, save: Callable[..., str]
) -> None:
    save("x/model", clusters=4)
    artifact.save(KMeansModel([[1.0]]), root / "x")
    catalog.load("x", str(root / "x"))
    assert catalog.get("x").clusters == 1


@pytest.mark.parametrize("ask", [Registry.get, Registry.entry, Registry.unload])
def test_model_that_is_not_loaded_is_not_found(catalog: Registry, ask: Callable[[Registry, str], object]) -> None:
    with pytest.raises(NotLoadedError, match="no model 'x' is loaded"):
        ask(catalog, "x")


def test_unloaded_model_can_be_loaded_again(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("x")
    catalog.load("x", url)
    assert catalog.unload("x") == Entry("x", url)
    assert catalog.page(10).entries == []
    with pytest.raises(NotLoadedError):
        catalog.get("x")
    catalog.load("x", url)
    assert catalog.get("x").clusters == 2


def test_second_load_of_a_name_is_refused(catalog: Registry, save: Callable[..., str]) -> None:
    catalog.load("x", save("x", clusters=2))
    for url in (save("y", clusters=3), "/etc"):
        with pytest.raises(AlreadyLoadedError, match="'x' is loaded already"):
            catalog.load("x", url)
    assert catalog.get("x").clusters == 2


def test_failed_load_frees_name_and_budget(catalog: Registry, root: Path, save: Callable[..., str]) -> None:
    url = save("x")
    content = (root / "x" / "model_algo-1").read_bytes()
    (root / "x" / "model_algo-1").write_bytes(content[:-20])
    with pytest.raises(ModelError, match="corrupt"):
        catalog.load("x", url)
    assert catalog.taken() == 0
    (root / "x" / "model_algo-1").write_bytes(content)
    catalog.load("x", url)
    assert catalog.get("x").clusters == 2


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_pages_list_all_models_by_name(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("x")
    names = ["b", "a", "Z", "10", "9", "~", "a.b"]
    for name in names:
        catalog.load(name, url)
    found, token, pages = [], "", 0
    while True:
        page = catalog.page(3, token)
        found += [entry.name for entry in page.entries]
        pages += 1
        if page.next_token is None:
            break
        token = page.next_token
    assert found == sorted(names)
    assert pages == 3


def test_full_last_page_has_no_token(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("x")
    for name in "abcd":
        catalog.load(name, url)
    first = catalog.page(2)
    assert first.next_token is not None
    last = catalog.page(2, first.next_token)
    assert [entry.name for entry in last.entries] == ["c", "d"]
    assert last.next_token is None


def test_paging_during_changes_lists_all_stable_models(catalog: Registry, save: Callable[..., str]) -> None:
    url = save("x")
    for name in "bdfh":
        catalog.load(name, url)
    first = catalog.page(2)
    assert first.next_token is not None
    catalog.unload("d")  # the last of the page that was shown
    catalog.load("a", url)
    assert [entry.name for entry in catalog.page(2, first.next_token).entries] == ["f", "h"]


# ---- names and urls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x", "0" * 1024, "..", "a%2Fb", "model:1;v=2?#&+", "\\", "~"])
def test_names_are_not_interpreted(catalog: Registry, save: Callable[..., str], name: str) -> None:
    catalog.load(name, save("x"))
    assert catalog.get(name).clusters == 2


@pytest.mark.parametrize("name", ["", "0" * 1025, "a b", "a/b", "/", "ä", "a\n", "\0", "\x7f", "\u200b"])
def test_names_that_no_request_can_contain_are_refused(catalog: Registry, save: Callable[..., str], name: str) -> None:
    with pytest.raises(ModelError, match="model_name: expected 1 to 1024 visible ASCII characters"):
        catalog.load(name, save("x"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A good model beside the root, in a folder whose name begins like the root's."""
    folder = tmp_path / "models-of-others" / "secret"
    folder.mkdir(parents=True)
    artifact.save(KMeansModel([[1.0, 2.0]]), folder)
    return folder


@pytest.mark.parametrize(
    "url",
    [
        "{outside}",
        "{root}/../models-of-others/secret",
        "{root}/x/../../models-of-others/secret",
        "{root}//..//models-of-others/secret",
        "{root}/link",
        "{root}/link/../secret",
        "{root}",
        "{root}/",
        "{root}/.",
        "{root}/x/..",
        "file://{root}/x",
        "x",
        "",
        "/",
        "{root}/x\0",
        "{root}/" + "x/../" * 1000 + "x",
        "~/x",
    ],
)
def test_only_urls_below_the_root_are_read(
    catalog: Registry, root: Path, outside: Path, save: Callable[..., str], url: str
) -> None:
    save("x")
    (root / "link").symlink_to(outside)
    with pytest.raises(ModelError, match="expected the folder of a model below") as caught:
        catalog.load("x", url.format(root=root, outside=outside))
    assert len(str(caught.value)) < 1000


def test_url_outside_the_root_is_refused_without_a_hint(catalog: Registry, root: Path, outside: Path) -> None:
    root.mkdir()
    said = []
    for target in (outside, outside.parent / "absent"):
        (root / "link").unlink(missing_ok=True)
        (root / "link").symlink_to(target)
        with pytest.raises(ModelError) as caught:
            catalog.load("x", str(root / "link"))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "others" not in said[0]


def test_links_within_the_root_are_followed(catalog: Registry, root: Path, save: Callable[..., str]) -> None:
    save("x", clusters=4)
    (root / "link").symlink_to("x")
    (root / "y").mkdir()
    (root / "y" / "model_algo-1").symlink_to("../x/model_algo-1")
    catalog.load("folder", str(root / "link"))
    catalog.load("file", str(root / "y"))
    assert catalog.get("folder").clusters == catalog.get("file").clusters == 4


def test_linked_root_is_followed_and_not_resolved_in_messages(
    tmp_path: Path, root: Path, save: Callable[..., str]
) -> None:
    save("x")
    (root / "x" / "model_algo-1").unlink()
    (tmp_path / "ml").symlink_to(root)
    catalog = Registry(tmp_path / "ml", MEGABYTE)
    with pytest.raises(ModelError, match="There is no model in") as caught:
        catalog.load("x", str(tmp_path / "ml" / "x"))
    assert str(tmp_path / "ml" / "x") in str(caught.value)
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize("name", ["model_algo-1", "kmeans.json", "centers.npy"])
def test_files_linked_outside_the_root_are_not_read(
    catalog: Registry, root: Path, outside: Path, save: Callable[..., str], name: str
) -> None:
    url = save("x")
    (root / "x" / name).unlink(missing_ok=True)
    (root / "x" / name).symlink_to(outside / "model_algo-1")
    with pytest.raises(ModelError, match=f"holds '{name}', a link to a place outside") as caught:
        catalog.load("x", url)
    assert "others" not in str(caught.value)


def test_subfolder_linked_outside_the_root_is_refused(catalog: Registry, root: Path, outside: Path) -> None:
    (root / "x").mkdir(parents=True)
    (root / "x" / "model").symlink_to(outside)
    with pytest.raises(ModelError, match="a link to a place outside"):
        catalog.load("x", str(root / "x"))


@pytest.mark.parametrize("name", ["model_algo-1", "kmeans.json", "centers.npy"])
def test_pipe_is_refused_without_reading_it(catalog: Registry, root: Path, save: Callable[..., str], name: str) -> None:
    url = save("x")
    (root / "x" / name).unlink(missing_ok=True)
    os.mkfifo(root / "x" / name)
    with pytest.raises(ModelError, match=f"holds '{name}', which is no regular file"):
        catalog.load("x", url)


def test_link_to_itself_is_refused(catalog: Registry, root: Path) -> None:
    root.mkdir()
    (root / "x").symlink_to("x")
    with pytest.raises(ModelError, match="there is no folder"):
        catalog.load("x", str(root / "x"))


@pytest.mark.parametrize("place", ["absent", "file"])
def test_url_that_is_not_a_folder_is_refused(catalog: Registry, root: Path, place: str) -> None:
    root.mkdir()
    (root / "file").write_bytes(b"")
    with pytest.raises(ModelError, match=f"there is no folder '{root / place}'"):
        catalog.load("x", str(root / place))


def test_empty_folder_is_refused(catalog: Registry, root: Path) -> None:
    (root / "x").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"There is no model in .*: .* it is empty"):
        catalog.load("x", str(root / "x"))


def test_folder_with_too_many_files_is_refused(catalog: Registry, root: Path) -> None:
    (root / "x").mkdir(parents=True)
    for number in range(1001):
        (root / "x" / str(number)).touch()
    with pytest.raises(ModelError, match="more than 1000 files"):
        catalog.load("x", str(root / "x"))


# ---- memory --------------------------------------------------------------------------------------------------------


def test_model_that_does_not_fit_is_not_read(root: Path, save: Callable[..., str], gate: Gate) -> None:
    catalog = Registry(root, MEGABYTE)
    with pytest.raises(NoRoomError, match=r"takes 2\d MB of memory, and 1 of the 1 MB for models are free") as caught:
        catalog.load("x", save("x", clusters=1000, features=1000))
    assert "unload" in str(caught.value)
    assert not gate.reached.acquire(blocking=False)
    assert catalog.taken() == 0


def test_unloading_a_model_makes_room_in_the_budget(root: Path, save: Callable[..., str]) -> None:
    url = save("x", clusters=100, features=1000)  # 1.2 MB once it is loaded, 2.4 MB while it is read
    catalog = Registry(root, 8 * MEGABYTE)
    for number in range(5):
        catalog.load(str(number), url)
    with pytest.raises(NoRoomError):
        catalog.load("next", url)
    catalog.unload("0")
    catalog.load("next", url)


def test_budget_includes_models_that_are_being_read(
    root: Path, save: Callable[..., str], gate: Gate, threads: Any
) -> None:
    url = save("x", clusters=100, features=1000)
    catalog = Registry(root, 4 * MEGABYTE)  # reading one takes 2.4 MB
    first = threads.submit(catalog.load, "first", url)
    gate.wait_for_one()
    with pytest.raises(NoRoomError):
        catalog.load("second", url)
    gate.open()
    assert outcome(first) == Entry("first", url)


def test_budget_includes_unloaded_models_still_in_use(
    catalog: Registry, save: Callable[..., str], threads: Any
) -> None:
    catalog.load("x", save("x", clusters=100, features=1000))
    size = catalog.taken()
    assert size >= 3 * 100 * 1000 * 4
    in_use = catalog.get("x")
    with pytest.raises(StillInUseError, match="given back when that has ended"):
        catalog.unload("x", seconds=0)
    assert in_use.clusters == 100
    assert catalog.taken() == size
    with pytest.raises(NotLoadedError):
        catalog.get("x")
    del in_use
    assert catalog.taken() == 0


def test_load_without_memory_raises_no_room(
    catalog: Registry, save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> KMeansModel:
        raise MemoryError

    monkeypatch.setattr(artifact, "load", fail)
    with pytest.raises(NoRoomError, match="no memory left"):
        catalog.load("x", save("x"))
    assert catalog.taken() == 0


@pytest.mark.parametrize(("usable", "expected"), [(64, 0), (256, 51), (1024, 588), (16384, 11340)])
def test_budget_reserves_memory_for_program_and_requests(usable: int, expected: int) -> None:
    assert budget(usable * MEGABYTE) // MEGABYTE == expected


# ---- at once -------------------------------------------------------------------------------------------------------


def test_concurrent_loads_of_a_name_succeed_once(
    catalog: Registry, save: Callable[..., str], gate: Gate, threads: Any
) -> None:
    url = save("x")
    first = threads.submit(catalog.load, "x", url)
    gate.wait_for_one()
    others = [threads.submit(catalog.load, "x", url) for _ in range(3)]
    # They are refused at once, and not when the first is done.
    assert [outcome(other) for other in others] == [AlreadyLoadedError] * 3
    with pytest.raises(NotLoadedError):
        catalog.get("x")
    with pytest.raises(NotLoadedError):
        catalog.unload("x")
    gate.open()
    assert outcome(first) == Entry("x", url)
    assert catalog.get("x").clusters == 2


def test_loading_blocks_no_other_request(catalog: Registry, save: Callable[..., str], gate: Gate, threads: Any) -> None:
    slow, quick = save("slow"), save("quick", clusters=7)
    gate.open()
    catalog.load("quick", quick)
    gate.wait_for_one()
    gate.close()
    loading = threads.submit(catalog.load, "slow", slow)
    gate.wait_for_one()
    # All of these would hang if a lock were held while a model is read.
    assert threads.submit(catalog.get, "quick").result(SECONDS).clusters == 7
    assert threads.submit(catalog.page, 10).result(SECONDS).entries == [Entry("quick", quick)]
    assert outcome(threads.submit(catalog.unload, "quick")) == Entry("quick", quick)
    gate.open()
    assert outcome(loading) == Entry("slow", slow)


def test_unload_waits_for_users_of_the_model(catalog: Registry, save: Callable[..., str], threads: Any) -> None:
    catalog.load("x", save("x"))
    in_use = [catalog.get("x")]
    unloading = threads.submit(catalog.unload, "x")
    assert wait([unloading], timeout=0.2).done == set()
    with pytest.raises(NotLoadedError):
        catalog.get("x")
    assert in_use[0].predict([[0.0, 1.0, 2.0]])[0].tolist() == [0]
    in_use.clear()
    assert outcome(unloading).name == "x"  # type: ignore[attr-defined]


def test_unload_frees_a_model_held_by_a_reference_cycle(catalog: Registry, save: Callable[..., str]) -> None:
    """As an error's traceback does that refers to itself: nobody uses it, but it isn't gone."""
    catalog.load("x", save("x"))
    cycle: list[object] = [catalog.get("x")]
    cycle.append(cycle)
    gc.disable()  # what would find it some time
    try:
        del cycle
        catalog.unload("x", seconds=SECONDS)
    finally:
        gc.enable()
    assert catalog.taken() == 0


def test_concurrent_unloads_of_a_name_succeed_once(catalog: Registry, save: Callable[..., str], threads: Any) -> None:
    catalog.load("x", save("x"))
    outcomes = [outcome(future) for future in [threads.submit(catalog.unload, "x") for _ in range(8)]]
    assert outcomes.count(NotLoadedError) == 7


def test_concurrent_loads_queries_and_unloads_succeed(
    catalog: Registry, save: Callable[..., str], threads: Any
) -> None:
    """Whatever the order, each name is one model, an answer is that of the model asked, and nothing stays behind."""
    urls = {str(k): save(str(k), clusters=k) for k in range(1, 9)}

    def work(seed: int) -> int:
        asked = 0
        random = np.random.default_rng(seed)
        for step in random.integers(0, 4, 200).tolist():
            name = str(random.integers(1, 9))
            try:
                match step:
                    case 0:
                        catalog.load(name, urls[name])
                    case 1:
                        catalog.unload(name)
                    case 2:
                        assert catalog.get(name).clusters == int(name)
                        asked += 1
                    case _:
                        names = [entry.name for entry in catalog.page(100).entries]
                        assert names == sorted(set(names))
            except (AlreadyLoadedError, NotLoadedError):
                pass
        return asked

    assert sum(future.result(SECONDS) for future in [threads.submit(work, seed) for seed in range(8)]) > 0
    for entry in catalog.page(100).entries:
        catalog.unload(entry.name)
    assert catalog.taken() == 0
