"""The list of formats: the only one of the project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kmeans.formats import csv, json, jsonlines, npy, recordio
from kmeans.formats.format import Format


class Registry:
    """Formats by media type."""

    def __init__(self, formats: Iterable[Format] = ()) -> None:
        self._formats: dict[str, Format] = {}
        for form in formats:
            self.register(form)

    def register(self, form: Format) -> None:
        """Add ``form``.

        Raises
        ------
        ValueError
            If one of its names is already registered.
        """
        for name in (form.media_type, *form.aliases):
            if self.find(name) is not None:
                raise ValueError(f"the media type {name} is already registered")
        self._formats[form.media_type] = form

    def __iter__(self) -> Iterator[Format]:
        return iter(self._formats.values())

    def __getitem__(self, media_type: str) -> Format:
        """Return the format of ``media_type``; raise a KeyError if there is none."""
        return self._formats[media_type]

    def find(self, name: str) -> Format | None:
        """Return the format with this media type or alias, in lower case; None if there is none."""
        for form in self._formats.values():
            if name == form.media_type or name in form.aliases:
                return form
        return None

    def detect(self, head: bytes) -> Format | None:
        """Return the training format of a file with these first bytes; None if they are of no format."""
        for form in self.of_training():
            if form.magic and head.startswith(form.magic):
                return form
        if b"\0" in head:
            return None
        return next((form for form in self.of_training() if form.is_text_like and form.is_text_like(head)), None)

    def of_training(self) -> list[Format]:
        """Return the formats of training data."""
        return [form for form in self._formats.values() if form.is_of_training]

    def of_requests(self) -> list[Format]:
        """Return the formats of requests."""
        return [form for form in self._formats.values() if form.is_of_requests]

    def of_responses(self) -> list[Format]:
        """Return the formats of responses, those of the largest preference first."""
        return sorted(
            (form for form in self._formats.values() if form.is_of_responses), key=lambda form: -form.preference
        )


FORMATS = Registry((csv.FORMAT, json.FORMAT, jsonlines.FORMAT, recordio.FORMAT, npy.FORMAT))
