"""The models that a multi-model server has in memory: loaded by one request, used by many, freed after the last.

Python's reference counts decide how long a model is in memory: an invocation keeps the model that it got from
:meth:`Registry.get`, even if the model is unloaded meanwhile, and :meth:`Registry.unload` waits until no invocation
refers to it. The memory of models is counted in the same way.
"""

from __future__ import annotations

import bisect
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from kmeans import artifact
from kmeans.errors import ModelError, shown
from kmeans.model import KMeansModel
from serve import allocator
from serve.multi_model import memory

# The fraction of the process's memory for models, minus a reserve. The rest is for the program itself and for requests,
# whose decoded rows take several times the bytes of a body.
MODELS_SHARE, RESERVED_BYTES = 0.7, 128 << 20

# How long unloading waits for invocations: SageMaker's limit for an answer.
UNLOAD_SECONDS = 60.0
# An error's traceback can keep a model in a reference cycle, which only the garbage collector frees.
COLLECT_SECONDS = 1.0

MAX_NAME, MAX_URL = 1024, 4096
# Characters of an invalid url that are repeated in the answer.
MAX_SHOWN = 300
# Most files in the folder of a model, which needs few.
MAX_FILES = 1000
# Subfolder that may contain the model, as in /opt/ml after training.
INNER_FOLDER = "model"

MEGABYTE = 1 << 20


class AlreadyLoadedError(Exception):
    """A model of this name is loaded, or is being loaded; for HTTP that is 409."""


class NotLoadedError(Exception):
    """No model of this name is loaded; for HTTP that is 404."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no model {shown(name)} is loaded.")


class NoRoomError(Exception):
    """There is not enough memory for a model next to the others; for HTTP that is 507."""


class StillInUseError(Exception):
    """A model is unloaded, but the invocations that use it don't end; for HTTP that is 503."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A loaded model in the catalog: its name and the url it was loaded from."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the loaded models by name, and the token of the next page, None on the last."""

    entries: list[Entry]
    next_token: str | None


def budget(usable_memory: int) -> int:
    """Return how many bytes of the process's ``usable_memory`` models may take."""
    return max(0, int(MODELS_SHARE * usable_memory) - RESERVED_BYTES)


class Registry:
    """Models by name. All methods are thread-safe.

    Create it before the process starts its threads: they then share one heap, whose memory can be returned.

    Parameters
    ----------
    root
        Folder that contains the models, ``<SAGEMAKER_BASE_DIR>/models``. It need not exist yet.
    budget_bytes
        Memory for all models, including those that are being read.
    """

    def __init__(self, root: Path, budget_bytes: int) -> None:
        # Here and not in unload: existing heaps remain.
        allocator.keep_one()
        self._root = root
        self._budget = budget_bytes
        # Never held while a file is read.
        self._lock = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}
        # Bytes of the models that are being read, by name, and the memory of all others, including unloaded models that
        # are still in use.
        self._reading: dict[str, int] = {}
        self._memories: list[_Memory] = []

    def load(self, name: str, url: str) -> Entry:
        """Read the model in the folder ``url``, or in its subfolder ``model``, and register it as ``name``.

        Raises
        ------
        AlreadyLoadedError
            If the name is in use. If several requests load the same name at once, one succeeds.
        NoRoomError
            If the model doesn't fit next to the others; it is not read.
        kmeans.errors.ModelError
            If the name is invalid, ``url`` is not a folder below the root, or the folder has no valid model.
        """
        _check_name(name)
        with self._lock:
            if name in self._loaded or name in self._reading:
                state = "loaded already" if name in self._loaded else "being loaded by another request"
                raise AlreadyLoadedError(f"the model {shown(name)} is {state}.")
            self._reading[name] = 0
        loaded = None
        try:
            loaded = self._read(name, url)
        finally:
            with self._lock:
                del self._reading[name]
                if loaded is not None:
                    self._loaded[name] = loaded
                    self._memories.append(loaded.memory)
            # Memory that only reading needed.
            allocator.trim()
        return loaded.entry

    def get(self, name: str) -> KMeansModel:
        """Return the model ``name``; it stays in memory until the caller drops the reference.

        Raises
        ------
        NotLoadedError
            If no model has this name.
        """
        try:
            return self._loaded[name].model
        except KeyError:
            raise NotLoadedError(name) from None

    def entry(self, name: str) -> Entry:
        """Return the catalog's entry of the model ``name``.

        Raises
        ------
        NotLoadedError
            If no model has this name.
        """
        try:
            return self._loaded[name].entry
        except KeyError:
            raise NotLoadedError(name) from None

    def page(self, limit: int, token: str = "") -> Page:
        """Return the first ``limit`` (>= 1) models by name after ``token``, the token of the page before.

        All pages together list every model that is loaded throughout exactly once, even if others are loaded or
        unloaded meanwhile.
        """
        with self._lock:
            names = sorted(self._loaded)
            first = bisect.bisect_right(names, token)
            listed = names[first : first + limit]
            entries = [self._loaded[name].entry for name in listed]
        return Page(entries, listed[-1] if first + limit < len(names) else None)

    def unload(self, name: str, seconds: float = UNLOAD_SECONDS) -> Entry:
        """Remove the model ``name``, and free its memory when the invocations that use it have ended.

        Raises
        ------
        NotLoadedError
            If no model has this name.
        StillInUseError
            If it is still in use after ``seconds``. Its memory is freed later, with the last use.
        """
        with self._lock:
            loaded = self._loaded.pop(name, None)
        if loaded is None:
            raise NotLoadedError(name)
        entry, memory = loaded.entry, loaded.memory
        del loaded
        if not memory.wait_until_free(seconds):
            raise StillInUseError(
                f"the model {shown(name)} takes no new requests, but one that is under way still uses it after "
                f"{seconds:g} s: its memory is given back when that has ended."
            )
        allocator.trim()
        return entry

    def taken(self) -> int:
        """Return the used bytes of the budget, including models being read and unloaded models still in use."""
        with self._lock:
            return self._taken()

    def _taken(self) -> int:
        self._memories = [memory for memory in self._memories if not memory.is_free]
        return sum(memory.size for memory in self._memories) + sum(self._reading.values())

    def _read(self, name: str, url: str) -> _Loaded:
        try:
            directory, files = self._find(url)
        except OSError as error:
            raise ModelError(f"url: the folder {shown(url, MAX_SHOWN)} can't be read: {error.strerror}.") from None
        self._reserve(name, memory.while_reading(files))
        try:
            model = artifact.load(directory)
        except MemoryError:
            raise NoRoomError("the machine has no memory left to read the model: unload others.") from None
        return _Loaded(Entry(name, url), model, _Memory(model, memory.once_read(model, files)))

    def _reserve(self, name: str, size: int) -> None:
        with self._lock:
            free = max(0, self._budget - self._taken())
            if size > free:
                raise NoRoomError(
                    f"reading the model takes {-(-size // MEGABYTE)} MB of memory, and {free // MEGABYTE} of the "
                    f"{self._budget // MEGABYTE} MB for models are free: unload others."
                )
            self._reading[name] = size

    def _find(self, url: str) -> tuple[Path, list[Path]]:
        """Return the folder of the model at ``url``, below the root, and its files."""
        directory = self._below_root(url)
        files = self._files(directory)
        if not files and (directory / INNER_FOLDER).is_dir():
            directory = self._below_root(str(directory / INNER_FOLDER))
            files = self._files(directory)
        return directory, files

    def _below_root(self, url: str) -> Path:
        """Return the folder ``url`` with all links resolved.

        A folder outside the root is refused with the same message whether it exists or not.
        """
        root = os.path.realpath(self._root)
        real = os.path.realpath(url) if url.startswith("/") and "\0" not in url and len(url) <= MAX_URL else ""
        if not real.startswith(root + os.sep):
            raise ModelError(f"url: expected the folder of a model below {self._root}, found {shown(url)}.")
        # Relative to the unresolved root, so no message shows the target of a link.
        directory = self._root / os.path.relpath(real, root)
        if not directory.is_dir():
            raise ModelError(f"url: there is no folder {shown(url, MAX_SHOWN)}.")
        return directory

    def _files(self, directory: Path) -> list[Path]:
        """Return the files in ``directory``; refuse links out of the root, pipes and devices."""
        root = os.path.realpath(self._root)
        files = []
        for path in _listed(directory):
            if not os.path.realpath(path).startswith(root + os.sep):
                raise ModelError(f"The model in {directory} holds {shown(path.name)}, a link to a place outside.")
            if path.is_file():
                files.append(path)
            elif not path.is_dir():
                raise ModelError(f"The model in {directory} holds {shown(path.name)}, which is no regular file.")
        return files


class _Memory:
    """The memory of a model, used until the last reference to the model is dropped."""

    def __init__(self, model: KMeansModel, size: int) -> None:
        self.size = size
        # The only queue that is safe to use from within a garbage collection.
        self._freed: SimpleQueue[object] = SimpleQueue()
        self._model = weakref.ref(model, self._freed.put)

    @property
    def is_free(self) -> bool:
        return self._model() is None

    def wait_until_free(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until the memory is free; return whether it is."""
        deadline = time.monotonic() + seconds
        while not self.is_free:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            gc.collect()
            try:
                self._freed.get(timeout=min(left, COLLECT_SECONDS))
            except Empty:
                continue
        return True


@dataclass(frozen=True, slots=True)
class _Loaded:
    entry: Entry
    model: KMeansModel
    memory: _Memory


def _check_name(name: str) -> None:
    """Refuse a name that the path of a request can't contain. A name is never part of a file's path."""
    is_visible = name.isascii() and name.isprintable() and " " not in name
    if not is_visible or "/" in name or not 1 <= len(name) <= MAX_NAME:
        raise ModelError(
            f"model_name: expected 1 to {MAX_NAME} visible ASCII characters without a slash, found {shown(name)}."
        )


def _listed(directory: Path) -> Iterator[Path]:
    """Yield the entries of ``directory``; refuse a folder that can't be a model's."""
    try:
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries):
                if count == MAX_FILES:
                    raise ModelError(f"There is no model in {directory}: found more than {MAX_FILES} files.")
                yield directory / entry.name
    except OSError as error:
        raise ModelError(f"The model in {directory} can't be read: {error.strerror}.") from None
