"""One target under libFuzzer, which ends the process: ``python -m tests.fuzz.harness TARGET OPTION ...``."""

from __future__ import annotations

import sys
import tracemalloc

import atheris  # type: ignore[import-untyped]  # it has a separate environment

# The packages whose branches guide the search, including libraries that read input: archives, requests.
INSTRUMENTED = ["kmeans", "train", "serve", "gzip", "zipfile", "tarfile", "gunicorn", "werkzeug"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Search until the runs or seconds among the options are used up, or something doesn't hold."""
    name, *options = sys.argv[1:]
    # From here on, not again for each input: a decoder's memory is measured by its growth.
    tracemalloc.start()
    atheris.Setup([sys.argv[0], *options], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
