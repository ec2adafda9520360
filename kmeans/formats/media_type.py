"""The content type of a channel, as SageMaker writes it: ``text/csv; label_size=0`` (RFC 9110, section 8.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

# Names that code refers to; all about them is in :mod:`kmeans.formats.registry`.
CSV, JSON, JSON_LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO, NPY = "application/x-recordio-protobuf", "application/x-npy"


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type without regard to letter case.

    Attributes
    ----------
    name
        ``type/subtype`` in lower case; ``""`` if there is none.
    parameters
        Names in lower case, values as given, without quotes.
    """

    name: str
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> MediaType:
        """Return the media type in ``text``; anything malformed stays in ``name``, where no format matches it.

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
        return cls(name.strip().lower(), parameters)
