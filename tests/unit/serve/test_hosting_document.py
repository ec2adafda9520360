"""docs/hosting.md and the code say the same."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from kmeans.formats.registry import FORMATS
from serve import errors
from serve.app import create_app
from serve.exchange import STAGES, Record
from serve.metrics import Metrics
from serve.settings import Settings

PROJECT = Path(__file__).resolve().parents[3]
DOCUMENT = (PROJECT / "docs" / "hosting.md").read_text()


def table(title: str) -> list[list[str]]:
    """Return the cells of the first table below a title, without its head."""
    section = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(title: str, column: int = 0) -> set[str]:
    return {name for row in table(title) for name in re.findall(r"`([^`]+)`", row[column])}


def test_document_has_a_cell_for_every_format() -> None:
    section = DOCUMENT.partition("\n## Formats\n")[2]
    head = next(line for line in section.splitlines() if line.startswith("|"))
    assert re.findall(r"`([^`]+)`", head) == [form.media_type for form in FORMATS.of_responses()]
    assert {row[0].strip("`") for row in table("Formats")} == {form.media_type for form in FORMATS.of_requests()}
    assert all(row[1:] == ["yes"] * len(FORMATS.of_responses()) for row in table("Formats"))


def test_document_names_exactly_the_variables() -> None:
    source = (PROJECT / "serve" / "settings.py").read_text()
    assert quoted("Environment") == set(re.findall(r'"((?:SAGEMAKER|KMEANS)_[A-Z_]+)"', source))


def test_document_names_exactly_the_log_fields() -> None:
    record = Record(
        "id", "trace", "span", "POST", "/x", model="m", code="c", bad_rows=1, seconds=dict.fromkeys(STAGES, 0.1)
    )
    line = json.loads(record.line())
    assert quoted("The log") == set(line)
    assert all(f"`{stage}`" in DOCUMENT for stage in line["ms"])


def test_document_names_exactly_the_metrics() -> None:
    text = Metrics(1).render().decode()
    named = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert quoted("Metrics") == named


def test_document_names_every_error_code() -> None:
    codes = {code for _, code in errors.REFUSALS.values()}
    source = (PROJECT / "serve" / "errors.py").read_text() + (PROJECT / "serve" / "server" / "malformed.py").read_text()
    codes |= set(re.findall(r'(?:HTTPStatus\.\w+|status), "(\w+)"', source))
    assert "invalid_request" in codes
    assert codes <= quoted("Errors", 1)
    assert quoted("Errors", 1) - codes == {"not_found", "method_not_allowed"}


@pytest.mark.parametrize("is_multi_model", [False, True])
def test_document_names_every_route(is_multi_model: bool) -> None:
    settings = dataclasses.replace(Settings.from_environment({}, cpus=1), is_multi_model=is_multi_model)
    routes = {re.sub(r"<(\w+)>", r"{\1}", rule.rule) for rule in create_app(settings, None).url_map.iter_rules()}
    named = {name.removeprefix("GET ").removeprefix("POST ") for name in quoted("Routes")}
    assert routes <= named


def test_every_point_of_the_contract_names_a_test() -> None:
    rows = table("The contract, point by point")
    assert len(rows) == 22
    assert [point for point, tests in rows if "`test_" not in tests] == []
