"""Comments, docstrings, documents and test names are in plain English.

codespell checks the spelling, and proselint the style. The phrases below are this project's reject list, each with a
plain word to replace it. Strings other than docstrings aren't checked, as users depend on messages.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("kmeans", "train", "serve", "local_test", "workflow", "benchmarks", "tests")
FILES = sorted(
    path.relative_to(PROJECT).as_posix()
    for path in (
        *PROJECT.glob("*.md"),
        *(PROJECT / "docs").rglob("*.md"),
        *(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")),
    )
)
# Files that still have such phrases or longer names of tests. The list only shrinks.
UNFINISHED = (Path(__file__).with_name("unfinished_language.txt")).read_text().split()
LONGEST_TEST_NAME = 60

# A pattern, and what to write in its place.
REJECTED = {
    r"(?:is|are|was|were|be|been|being|isn't|aren't) told": "is passed, gets, reports",
    r"passed over": "ignored, skipped",
    r"beside": "next to, compared with",
    r"but for": "except",
    r"anew": "again",
    r"so many": "n, at most n",
    r"(?<!there )(?:is|are|was|were) no (?!longer|more|less|fewer|later|earlier|better)\w+": "is not a, there is no",
    r"(?:lies?|stands?|lay|stood) in": "is in",
    r"of (?:its|their|one's|our|his) own": "its own, separate",
    r"ha(?:s|ve|d) a say in": "affects",
    r"(?:takes?|took|taking) part": "is used",
    r"(?:goes|going|went) on": "continues",
    r"(?:comes?|came|coming) out": "appears, results in",
    r"(?:looks?|looked|looking) again": "recomputes, checks again",
    r"(?:looks?|looked) at again": "is compared again",
    r"a row of (?:that|those)": "a series",
    r"whoever|nobody|whatever (?:is|was)": "name the actor",
    r"(?<=[.;:(] )who(?! is\b)|(?<=, and )who": "name the actor",
    r"(?<=[.;] )what \w+(?=[^?.|:]*[.;])": "name the subject",
}
PATTERN = re.compile("|".join(rf"\b(?:{pattern})(?!\w)" for pattern in REJECTED), re.IGNORECASE)


def _documented(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(child) or ""


def _prose_of_code(source: str) -> str:
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    # Lines of one comment are one text; any other token between them ends it.
    comments = "".join(
        token.string.lstrip("#:") if token.type == tokenize.COMMENT else "" if token.type == tokenize.NL else "\n"
        for token in tokens
    )
    return "\n\n".join([re.sub(r"\n+", "\n\n", comments), *_documented(ast.parse(source))])


def _prose_of_document(text: str) -> str:
    """Remove code, and ends of cells, which aren't ends of sentences."""
    return re.sub(r"^```.*?^```|^    .*?$|`[^`]*`", "CODE", text, flags=re.DOTALL | re.MULTILINE)


def _prose(name: str) -> str:
    text = (PROJECT / name).read_text()
    prose = _prose_of_code(text) if name.endswith(".py") else _prose_of_document(text)
    return re.sub(r"[ \t]*\n[ \t]*(?!\n)", " ", prose)


def _findings(name: str) -> list[str]:
    found = [match.group() for match in PATTERN.finditer(_prose(name))]
    if name.startswith("tests/"):
        names = re.findall(r"^ *def (test_\w+)", (PROJECT / name).read_text(), re.MULTILINE)
        found += [test for test in names if len(test) > LONGEST_TEST_NAME]
    return found


@pytest.mark.parametrize("name", [name for name in FILES if name not in UNFINISHED])
def test_file_uses_no_rejected_phrase(name: str) -> None:
    assert _findings(name) == [] or name == Path(__file__).relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished_file_is_still_unfinished(name: str) -> None:
    assert (PROJECT / name).exists(), "the file is gone: remove it from unfinished_language.txt"
    assert _findings(name), "the file is clean: remove it from unfinished_language.txt"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A rank is told its number.", ["is told"]),
        ("It stands in\nthe table.", ["stands in"]),
        ("There is no file; this is no file, and is no longer read.", ["is no file"]),
        ("`beside` is code, besides words.", []),
        ("```\nbeside\n```", []),
    ],
)
def test_findings_are_those_of_the_list(text: str, found: list[str]) -> None:
    prose = re.sub(r"\n", " ", _prose_of_document(text))
    assert [match.group() for match in PATTERN.finditer(prose)] == found


def test_prose_of_code_has_comments_and_docstrings_only() -> None:
    prose = _prose_of_code('"""Doc."""\n\nX = "beside"  # one\n# and two\n# lines\n')
    assert "Doc." in prose
    assert "and two lines" in prose
    assert "beside" not in prose
