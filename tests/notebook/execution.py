"""``python -m tests.notebook.execution``: runs the notebook from start to end and keeps its outputs in the file.

Run it after a change of the notebook, or of what it prints; it takes what ``make notebook`` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from kmeans.atomic_file import write_files

NOTEBOOK = Path(__file__).resolve().parents[2] / "workflow" / "mnist_kmeans.ipynb"
CELL_SECONDS = 300


def read() -> nbformat.NotebookNode:
    """Return the notebook as it is in the project."""
    return nbformat.read(NOTEBOOK, as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    """Return the cells that have a tag, in order."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def execute(notebook: nbformat.NotebookNode, parameters: Mapping[str, object] | None = None) -> None:
    """Run all cells in a new kernel, in the notebook's own folder as Jupyter does; outputs are put into ``notebook``.

    Parameters
    ----------
    parameters
        Values to take instead of those in the cell that is tagged ``parameters``.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    cells = list(notebook.cells)
    if parameters:
        (place,) = (cells.index(cell) for cell in tagged(notebook, "parameters"))
        source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    try:
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources=resources,
            record_timing=False,
            coalesce_streams=True,
        ).execute()
    finally:
        notebook.cells = cells


def main() -> int:
    """Replace the outputs in the file."""
    notebook = read()
    execute(notebook)
    # The version of Python doesn't belong to the notebook.
    notebook.metadata.language_info = {"name": "python"}
    write_files(NOTEBOOK.parent, {NOTEBOOK.name: (nbformat.writes(notebook) + "\n").encode()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
