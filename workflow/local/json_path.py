"""The JSONPath of batch transforms: what SageMaker documents of it, and nothing more.

``$``, ``.name``, ``['name']``, ``['name', 'other']``, ``[0]``, ``[-1]``, ``[0, -1]``, ``[1:]``, ``[1:3]`` (developer
guide, "Associate Prediction Results with Input Records"). A library would answer several names of an object with a list
of values; SageMaker gives an object of them.
"""

from __future__ import annotations

import re
from typing import Any

from workflow.errors import WorkflowError

_STEP = re.compile(
    r"""\.?\[\s*(?:
            (?P<names>'[^']*'(?:\s*,\s*'[^']*')*)
          | (?P<start>-?\d*)\s*:\s*(?P<end>-?\d*)
          | (?P<places>-?\d+(?:\s*,\s*-?\d+)*)
        )\s*\]
      | \.(?P<name>[A-Za-z_][A-Za-z0-9_-]*)""",
    re.VERBOSE,
)


def select(path: str, value: Any) -> Any:
    """Return what ``path`` selects of ``value``.

    Raises
    ------
    WorkflowError
        If the path isn't one of these, or leads to nothing.
    """
    if not path.startswith("$"):
        raise WorkflowError(f"Expected a JSONPath that begins with $, found {path!r}.")
    position = 1
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise WorkflowError(f"The JSONPath {path!r} can't be read from {path[position:]!r} on.")
        try:
            value = _follow(step, value)
        except (KeyError, IndexError, TypeError):
            raise WorkflowError(f"The JSONPath {path!r} leads to nothing at {step.group()!r}.") from None
        position = step.end()
    return value


def _follow(step: re.Match[str], value: Any) -> Any:
    if step["name"] is not None:
        return value[step["name"]]
    if step["names"] is not None:
        names = re.findall(r"'([^']*)'", step["names"])
        return value[names[0]] if len(names) == 1 else {name: value[name] for name in names}
    if not isinstance(value, list):
        raise TypeError
    if step["places"] is not None:
        places = [int(text) for text in step["places"].split(",")]
        return value[places[0]] if len(places) == 1 else [value[place] for place in places]
    return value[int(step["start"]) if step["start"] else None : int(step["end"]) if step["end"] else None]
