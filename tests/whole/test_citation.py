"""CITATION.cff says what the package says of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_clas import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def citation() -> Any:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_software_is_this_one(citation: Any) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert citation["version"] == __version__
    assert f'name = "{citation["title"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert [f'authors = [{{ name = "{one["name"]}" }}]' in project for one in citation["authors"]] == [True]


def test_it_has_the_keys_that_the_format_requires_and_no_others(citation: Any) -> None:
    """Of version 1.2.0 of the Citation File Format, as far as the file uses it."""
    assert citation["cff-version"] == "1.2.0"
    required = {"cff-version", "message", "title", "authors"}
    optional = {"abstract", "keywords", "license", "preferred-citation", "references", "type", "version"}
    assert required <= citation.keys() <= required | optional
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all(author.keys() == {"given-names", "family-names"} for author in reference["authors"])
        assert all(one.keys() == {"type", "value", "description"} for one in reference["identifiers"])


def test_the_paper_is_the_one_that_the_readme_names(citation: Any) -> None:
    (paper,) = citation["references"]
    number = re.search(
        r"CLAS \(\[arXiv [\d.]+\]\(https://arxiv\.org/abs/(\d{4}\.\d{5})\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert number is not None
    assert paper["url"] == f"https://arxiv.org/abs/{number[1]}"
    assert [one["value"] for one in paper["identifiers"]] == [f"arXiv:{number[1]}"]
    assert [one["family-names"] for one in paper["authors"]] == ["Pokharel", "Agrawal", "Nagar"]
