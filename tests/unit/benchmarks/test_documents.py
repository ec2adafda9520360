"""The committed documents are those that the templates render from the committed results."""

import json
from pathlib import Path

import pytest

from benchmarks import clustering_report, cost, formats, job, scaling_report, serving_report, soak
from benchmarks.results import Document, as_json, seconds_text, short

DOCS = Path(__file__).resolve().parents[3] / "docs"
COST = Document("cost", cost.context)
DOCUMENTS = (*(clustering_report.DOCUMENT, COST, scaling_report.DOCUMENT, serving_report.DOCUMENT, soak.DOCUMENT),)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_document_is_rendered_from_committed_json(document: Document) -> None:
    assert document.markdown(document.read(DOCS)) == (DOCS / f"{document.name}.md").read_text()


def test_document_write_stores_json_and_text(tmp_path: Path) -> None:
    content = COST.read(DOCS)
    text = COST.write(tmp_path / "new", content)
    assert COST.read(tmp_path / "new") == content
    assert (tmp_path / "new" / "cost.md").read_text() == text


def test_cost_with_cpu_seconds_and_memory_shows_them() -> None:
    content = COST.read(DOCS)
    content["fits"] = [{**each, "cpu_seconds": 1.25, "peak_bytes": 7_000_000} for each in content["fits"]]
    text = COST.markdown(content)
    assert "| n | seconds | CPU seconds | ns per row, column and cluster | moves on all rows | memory, MB |" in text
    assert "| 10,000 | 0.0985 | 1.25 | 6.16 | 16 | 7 |" in text


def test_soak_errors_are_listed() -> None:
    content = {**soak.DOCUMENT.read(DOCS), "errors": 1, "first_errors": ["12:00:00 ping: expected 200, found 503"]}
    text = soak.DOCUMENT.markdown(content)
    assert "| no error | 1 in 412,434 requests | **not met** |" in text
    assert text.endswith("First errors:\n\n- 12:00:00 ping: expected 200, found 503\n")


def test_job_shows_the_ratio_to_the_sum_of_its_parts() -> None:
    machine = {"machine": "this", "date": "2026-01-02"}
    text = job.DOCUMENT.markdown({"machine": machine, "start": 0.1, "read": 0.2, "fit": 0.7, "job": 1.5})
    assert "| the job, 1.50 times the sum | 1.500 |" in text


def test_formats_shows_rates() -> None:
    text = formats.DOCUMENT.markdown(
        {
            "machine": {"machine": "this", "date": "2026-01-02"},
            **{"rows": 10, "columns": 2},
            "recordio": [{"labels": "none", "bytes": 2e9, "read_seconds": 0.5, "write_seconds": 1.0}],
            "texts": [
                {
                    **{"columns": 4, "pattern": "%.3f", "numbers": 2_000_000},
                    **{"csv_seconds": 0.1, "loadtxt_seconds": 0.4, "json_lines_seconds": 0.2},
                }
            ],
            "npy": {"bytes": 3e9, "read_seconds": 1.0},
        }
    )
    assert "| none | 4.00 | 2.00 |" in text
    assert "| 4 | %.3f | 20.0 | 5.0 | 4.00 | 10.0 |" in text


def test_as_json_writes_one_record_per_line() -> None:
    content = {"machine": {"a": "b"}, "runs": [{"x": 1}, {"x": 2}], "none": []}
    text = as_json(content)
    assert json.loads(text) == content
    assert '  {"x": 1},\n  {"x": 2}\n' in text


@pytest.mark.parametrize(
    ("value", "seconds", "rounded"), [(0.01234, "0.012", "0.0123"), (12.34, "12.3", "12.3"), (1234.5, "1234", "1,234")]
)
def test_numbers_have_three_digits(value: float, seconds: str, rounded: str) -> None:
    assert (seconds_text(value), short(value)) == (seconds, rounded)
