"""Results as JSON, and the documents rendered from them with the templates in ``benchmarks/templates``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

Content = dict[str, Any]

TEMPLATES = Path(__file__).with_name("templates")
DOCS, QUICK = Path("docs"), Path("build/benchmark")


@dataclass(frozen=True, slots=True)
class Document:
    """The JSON, the text and the picture of one benchmark; all three have the same name.

    ``context`` derives the template's variables from the JSON, ``draw`` the picture from these variables. The template
    also gets the fields of the JSON and the upper-case constants of the module of ``context``. The template has the
    same name unless ``template`` is given.
    """

    name: str
    context: Callable[[Content], Content]
    draw: Callable[[Content, Path], None] | None = None
    picture: str = ".svg"
    template: str = ""

    def read(self, folder: Path) -> Content:
        """Return the results stored in ``folder``."""
        content: Content = json.loads((folder / f"{self.name}.json").read_text())
        return content

    def write(self, folder: Path, content: Content) -> str:
        """Store the results in ``folder``, render text and picture, and return the text."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(as_json(content))
        return self.render(folder)

    def render(self, folder: Path) -> str:
        """Render text and picture from the JSON in ``folder``, and return the text."""
        content = self.read(folder)
        text = self.markdown(content)
        (folder / f"{self.name}.md").write_text(text)
        if self.draw is not None:
            self.draw(self.context(content), folder / f"{self.name}{self.picture}")
        return text

    def markdown(self, content: Content) -> str:
        """Return the text for ``content`` without writing a file."""
        module = sys.modules[self.context.__module__]
        constants = {name: value for name, value in vars(module).items() if name.isupper()}
        template = _templates().get_template(f"{self.template or self.name}.md.j2")
        return template.render({"json": f"{self.name}.json", **constants, **content, **self.context(content)})


def as_json(content: Content) -> str:
    """Return ``content`` as JSON with one record of a list per line, which keeps differences readable."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def seconds_text(seconds: float | None) -> str:
    """Return ``seconds`` with three digits, as tables show them; empty if they were not measured."""
    if seconds is None:
        return ""
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def short(value: float) -> str:
    """Return ``value`` with three digits, without a fraction from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701 - the documents are Markdown, and no text comes from users
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(fmt=format, seconds=seconds_text, short=short, median=statistics.median)
    return environment


@contextmanager
def picture(file: Path, rows: int, columns: int, panel: tuple[float, float]) -> Iterator[tuple[Any, list[Any]]]:
    """Yield a figure and its ``rows`` x ``columns`` panels, and write the figure to ``file`` at the end.

    ``panel`` is the width and height of a panel in inches. The same figure always gives the same file.
    """
    import matplotlib as mpl  # noqa: PLC0415 - not in the processes that measure

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = file.stem
    from matplotlib import pyplot  # noqa: PLC0415

    size = (panel[0] * columns, panel[1] * rows)
    figure, grid = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    yield figure, list(grid.flat)
    figure.tight_layout()
    figure.savefig(file, **({"metadata": {"Date": None}} if file.suffix == ".svg" else {"dpi": 110}))
    pyplot.close(figure)
