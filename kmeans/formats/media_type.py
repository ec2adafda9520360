"""Media types as HTTP and SageMaker write them: ``text/csv; label_size=0`` (RFC 9110, section 8.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO, NPY = "application/x-recordio-protobuf", "application/x-npy"

# Other names by which clients call them.
ALIASES = {
    "*": "*/*",
    "csv": CSV,
    "application/csv": CSV,
    "application/jsonl": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/x-ndjson": JSON_LINES,
    "x-recordio-protobuf": RECORDIO,
}


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type without regard to letter case.

    Attributes
    ----------
    name
        ``type/subtype`` in lower case, the usual one for an alias such as ``csv``; ``""`` if there is none.
    parameters
        Names in lower case, values as they stand, without quotes.
    """

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> MediaType:
        """Read a header's or a channel's value; anything odd ends up in ``name``, where no format will match it.

        Examples
        --------
        >>> MediaType.parse("Text/CSV; label_size=0; charset=UTF-8")
        MediaType(name='text/csv', parameters={'label_size': '0', 'charset': 'UTF-8'})
        """
        name, *parts = (text or "").split(";")
        parameters = {}
        for part in parts:
            key, separator, value = part.partition("=")
            if separator:
                parameters[key.strip().lower()] = value.strip().strip('"')
        name = name.strip().lower()
        return cls(ALIASES.get(name, name), parameters)

    @property
    def quality(self) -> float:
        """How welcome the type is in an Accept header, from 0 (not at all) to 1 (the default)."""
        try:
            quality = float(self.parameters.get("q", "1"))
        except ValueError:
            return 0.0
        return min(max(quality, 0.0), 1.0) if isfinite(quality) else 0.0

    @property
    def specificity(self) -> int:
        """How precisely an Accept header names types by this one: 2 a type, 1 a range of subtypes, 0 all."""
        return 2 - self.name.count("*")

    def covers(self, name: str) -> bool:
        """Tell whether this type, which may be a range such as ``text/*``, includes the type ``name``."""
        own, _, subtype = self.name.partition("/")
        return self.name in (name, "*/*") or (subtype == "*" and name.startswith(f"{own}/"))
