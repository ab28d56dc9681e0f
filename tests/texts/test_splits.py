"""The splits: sizes, disjointness, and the same rows everywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from importlib import resources
from typing import Any

import datasets
import pytest
from hub_data import XNLI, XQUAD

from lm_eval_clas.texts.splits import make_xquad_table, xnli_rows, xnli_split, xquad_rows, xquad_split

XQUAD_LANGUAGES = ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
XNLI_LANGUAGES = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]


def shipped_table() -> dict[str, list[str]]:
    return json.loads(resources.files("lm_eval_clas").joinpath("data/xquad_splits.json").read_text(encoding="utf-8"))


def fingerprint(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def test_shipped_table_has_no_id_twice() -> None:
    table = shipped_table()
    assert {split: len(ids) for split, ids in table.items()} == {"profile": 111, "tune": 208}
    assert len({*table["profile"], *table["tune"]}) == 111 + 208


def test_xquad_split_of_one_question() -> None:
    table = shipped_table()
    assert {xquad_split(key) for key in table["profile"]} == {"profile"}
    assert {xquad_split(key) for key in table["tune"]} == {"tune"}
    assert xquad_split("any other id") == "test"


@pytest.mark.hub_data(XQUAD)
def test_shipped_table_is_what_the_data_gives() -> None:
    rows = datasets.load_dataset(XQUAD, "xquad.en")["validation"]
    assert make_xquad_table(rows["id"], rows["context"]) == shipped_table()


def test_xquad_table_needs_paragraphs_in_one_piece() -> None:
    with pytest.raises(ValueError, match="240 paragraphs"):
        make_xquad_table(["a", "b", "c"], ["one", "two", "one"])


@pytest.mark.hub_data(XQUAD)
@pytest.mark.parametrize("language", XQUAD_LANGUAGES)
def test_xquad_rows(language: str) -> None:
    whole = datasets.load_dataset(XQUAD, f"xquad.{language}")["validation"]
    parts = {split: xquad_rows(whole, split) for split in ("profile", "tune", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"profile": 111, "tune": 208, "test": 871}

    position = {key: row for row, key in enumerate(whole["id"])}
    for part in parts.values():
        rows = [position[key] for key in part["id"]]
        assert rows == sorted(rows)
    assert parts["profile"]["id"] == shipped_table()["profile"]  # the same ids in every language

    passages = {split: set(part["context"]) for split, part in parts.items()}
    assert {split: len(texts) for split, texts in passages.items()} == {"profile": 25, "tune": 45, "test": 170}
    assert len(set.union(*passages.values())) == 240  # so no passage is in two splits


def test_xnli_split_sizes() -> None:
    assert Counter(map(xnli_split, range(2490))) == {"tune": 200, "dev": 2290}


def test_xnli_tune_is_66_premises_and_two_rows() -> None:
    rows_of = Counter(row // 3 for row in range(2490) if xnli_split(row) == "tune")
    assert Counter(rows_of.values()) == {3: 66, 2: 1}
    (cut,) = (premise for premise, rows in rows_of.items() if rows == 2)
    assert [xnli_split(3 * cut + i) for i in range(3)] == ["tune", "tune", "dev"]


def test_xnli_split_never_moves() -> None:
    assert fingerprint([row for row in range(2490) if xnli_split(row) == "tune"]) == "80d8fe7c1b52f7f3"


@pytest.mark.parametrize("row", [-1, 2490])
def test_xnli_split_refuses_other_rows(row: int) -> None:
    with pytest.raises(ValueError, match="no row"):
        xnli_split(row)


@pytest.mark.hub_data(XNLI)
@pytest.mark.parametrize("language", XNLI_LANGUAGES)
def test_xnli_rows(language: str) -> None:
    whole = datasets.load_dataset(XNLI, language)["validation"]
    tune, dev = xnli_rows(whole, "tune"), xnli_rows(whole, "dev")
    assert (len(tune), len(dev)) == (200, 2290)
    expected = [row for row in range(2490) if xnli_split(row) == "tune"]
    assert tune["hypothesis"] == [whole[row]["hypothesis"] for row in expected]
    assert Counter(tune["label"]).most_common()[-1][1] >= 66  # 66 premises have one row of each label


def test_xnli_rows_needs_the_whole_validation_split() -> None:
    with pytest.raises(ValueError, match="2490"):
        xnli_rows(datasets.Dataset.from_dict({"premise": ["a"]}), "tune")


def test_unknown_split_is_refused() -> None:
    rows = datasets.Dataset.from_dict({"id": ["a"]})
    with pytest.raises(ValueError, match="profile, tune, test"):
        xquad_rows(rows, "train")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tune, dev"):
        xnli_rows(rows, "test")  # type: ignore[arg-type]
