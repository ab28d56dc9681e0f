"""Prose and messages are in British spelling throughout; names of options and functions are as their libraries have them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted((ROOT / "lm_eval_clas").rglob("*.py"))

# An option of the harness, and a word of tasks' names, are as they are.
AMERICAN = re.compile(
    r"\b(?!parallelize|civilization)[a-z]{4,}(?<!s)iz(?:e[ds]?|ing|ations?)\b|\bemphasiz\w+|\b(?:behavior|color|favor|neighbor|flavor)\w*|\banalyz\w+"
    r"|\b(?:centered|modeling|labeled|labeling|canceled|signaled|fulfill|gray|artifacts?|catalogs?|defense|toward)\b",
    re.IGNORECASE,
)
# Code, links, comments, what mkdocstrings puts in, and the names that a docstring describes.
_NO_PROSE = re.compile(r"^```.*?^```|`[^`\n]*`|\]\([^)\s]*\)|<!--.*?-->|^::: .*?$|^ +\w+: ", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_are_in_british_spelling(page: Path) -> None:
    assert AMERICAN.findall(_NO_PROSE.sub(" ", page.read_text(encoding="utf-8"))) == []


def test_messages_and_docstrings_are_in_british_spelling() -> None:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                assert AMERICAN.findall(_NO_PROSE.sub(" ", node.value)) == [], f"{module.name}: {node.value[:80]}"
