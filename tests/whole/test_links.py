"""Relative links lead somewhere, to the heading that they name, where the checkout is read as well as on the built site."""

from __future__ import annotations

import json
import re
import subprocess
import unicodedata
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted(DOCS.rglob("*.ipynb"))]

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)


@cache
def _prose(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return _FENCE.sub("", text)


def _on_github(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _on_the_site(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Names of headings that are the same on GitHub and on the site, so that a link to one works on both."""
    words = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in _HEADING.findall(_prose(page))]
    return frozenset(_on_github(heading) for heading in words if _on_github(heading) == _on_the_site(heading))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", _prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(DOCS) or not page.is_relative_to(DOCS), f"{target} is not on the site"
        assert not anchor or anchor in _anchors(file), target


def test_what_is_linked_is_in_the_repository() -> None:
    """And not only on the disk of whoever wrote the link."""
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if known.returncode:
        pytest.skip("not a git checkout")
    files = set(known.stdout.splitlines())
    for page in PAGES:
        for target in _LINK.findall(_CODE.sub("", _prose(page))):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", target):
                found = (page.parent / path).resolve()
                assert found.is_dir() or found.relative_to(ROOT).as_posix() in files, f"{page.name}: {target}"


def test_every_page_is_on_the_first_page_and_in_the_navigation() -> None:
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.glob("*.md")} - {"index.md"}
    assert pages <= set(_LINK.findall(_prose(DOCS / "index.md")))
    assert pages <= set(re.findall(r": (\S+\.md)$", (DOCS / "mkdocs" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [("How exact it is", "how-exact-it-is"), ("What `f1_lang` does", "what-f1_lang-does"), ("A, b - c", None), ("Émile", None)],
)
def test_anchors(tmp_path: Path, heading: str, anchor: str | None) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# {heading}\n", encoding="utf-8")
    assert _anchors(page) == ({anchor} if anchor else set())
