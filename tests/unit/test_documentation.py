"""What the documents say and what the code does are held together here."""

import re
from pathlib import Path

import pytest

from serve.negotiation import DECODERS, ENCODERS
from train import files, hyperparameters

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
ARCHITECTURE = (PROJECT / "docs" / "architecture.md").read_text()
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def test_the_readme_has_the_table_of_hyperparameters_as_it_is() -> None:
    assert hyperparameters.markdown_table() in README


@pytest.mark.parametrize("media_type", sorted({*DECODERS, *ENCODERS, *files.READERS}))
def test_the_readme_names_every_media_type(media_type: str) -> None:
    assert f"`{media_type}`" in README


@pytest.mark.parametrize("package", ["kmeans", "train", "serve", "workflow"])
def test_architecture_page_names_every_module(package: str) -> None:
    modules = {path.stem for path in (PROJECT / package).rglob("*.py")} - {"__init__", "__main__"}
    assert {name for name in modules if not re.search(rf"\b{name}\b", ARCHITECTURE)} == set()


def test_every_environment_variable_is_in_the_readme() -> None:
    source = "".join(
        path.read_text() for folder in ("train", "serve", "workflow") for path in (PROJECT / folder).glob("*.py")
    )
    assert {name for name in re.findall(r"(?:SAGEMAKER|KMEANS)_[A-Z_]+", source) if f"`{name}`" not in README} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_document_links_to_a_file_that_is_not_there(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_documents_name_only_verbs_that_the_makefile_has() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    used = {verb for document in DOCUMENTS for verb in re.findall(r"`make ([a-z-]+)", document.read_text())}
    assert used <= verbs


def test_every_test_that_a_document_names_exists() -> None:
    tests = "".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    named = {name for document in DOCUMENTS for name in re.findall(r"`(test_[a-z0-9_]+)`", document.read_text())}
    assert {name for name in named if f"def {name}(" not in tests} == set()
