"""Recipes that are meant to do harm, or are written by accident: each is one sentence, within a second."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.disk.checked_yaml import parse_yaml
from lm_eval_clas.study.recipe import FOLDER, StudyRecipe

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def aliases(kind: str) -> str:
    """Each line has the one before it ten times: after 26 of them, 10 to the 26 values."""
    lines = ["a: &a x" if kind == "list" else "a: &a {x: 1}"]
    for one, other in pairwise(LETTERS):
        ten = ", ".join([f"*{one}"] * 10)
        lines.append(f"{other}: &{other} [{ten}]" if kind == "list" else f"{other}: &{other} {{<<: [{ten}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 40_000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("{a: " * 60 + "1" + "}" * 60, "nested too deeply"),
        ("- " * 20_000, "nested too deeply"),
        ("&a [*a]", "a value in itself"),
        ("&a {b: *a}", "a value in itself"),
        (aliases("list"), "too large"),
        (aliases("merge"), "too large"),
        ("name: " + "9" * 3000, "a number that is too large"),
        ("name: " + "9" * 40_000, "a number that is too large"),
        ("name: 0x" + "f" * 40_000, "a number that is too large"),
        ("name: " + "1:" * 20_000 + "1", "a number that is too large"),
        ("name: -9223372036854775809", "a number that is too large"),
        ("x: " + "a" * 300_000, "too large"),
        ("a: 1\na: 2", "has 'a' twice, from line 1 on"),
        ("a: {b: 1, 'b': 2}", "has 'b' twice"),
        ("1: x\n0x1: y", "has '0x1' twice"),
        ("\n".join(f"k{number}: 1" for number in range(6_000)), "too large"),
        ('name: "\\x1b[31m"', r"a character that cannot be seen, in '\\u001b\[31m'"),
        ('"\\x07": 1', "a character that cannot be seen"),
        ("name: a\u202eb", "a character that cannot be seen"),
        ('name: "\\ud800"', "a character that cannot be seen"),
        ("name: \x1b", "is no YAML"),
        ("? [a]\n: 1", "is no YAML"),
        ("? {a: b}\n: c", "is no YAML|unhashable"),
    ],
)
def test_harm_is_one_sentence_within_a_second(tmp_path: Path, text: str, why: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match=why) as told:
        parse_yaml(text)
    assert len(str(told.value)) < 300
    (tmp_path / "recipe.yaml").write_bytes(text.encode())
    with pytest.raises(ClasError, match=r"recipe.yaml' cannot be read as YAML \(.*\); correct it\.") as said:
        StudyRecipe.load(tmp_path / "recipe.yaml")
    assert str(said.value).isprintable()
    assert time.process_time() - started < 2  # both


def test_what_people_write_is_read() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2,
    }  # fmt: skip
    assert parse_yaml("about: |\n  two\n  lines\tनमस्ते क्\u200dष\n") == {"about": "two\nlines\tनमस्ते क्\u200dष\n"}
    assert parse_yaml("") is None
    assert parse_yaml("x: [1, -2.5, true, null, 9223372036854775807]") == {"x": [1, -2.5, True, None, 2**63 - 1]}


@pytest.mark.parametrize("name", ['"a\\nb"', '"a\\tb"', "a/b", "..", "x" * 101])
def test_names_of_folders_are_names(tmp_path: Path, name: str) -> None:
    recipe = (FOLDER / "gemma-3-270m.yaml").read_text(encoding="utf-8").replace("\n    hf:", f"\n    {name}: {{}}\n    hf:")
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with pytest.raises(ClasError, match="must do as the name of a folder") as said:
        StudyRecipe.load(tmp_path / "recipe.yaml")
    assert str(said.value).isprintable()
