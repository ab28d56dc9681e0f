"""Which rows of XQuAD and XNLI belong to which split.

Neurons are profiled, alpha is tuned and the result is reported on rows that never overlap. The choice is a function
of ids alone: articles and premises are ordered by the SHA-256 of a fixed string, so there is no random state and
every machine, language and library version gets the same rows.

XQuAD (Artetxe et al. 2020, arXiv 1910.11856; one Hub split, 1190 questions, the same ids in every language) is cut by
article, so that no passage is in two splits:

    profile   the first articles until there are at least 100 questions   neuron profiling, few-shot examples
    tune      the next articles until there are at least 200 questions    choosing alpha
    test      all other articles                                          reported numbers

XNLI (Conneau et al. 2018, arXiv 1809.05053; 2490 validation rows, parallel by position, so the row index is the id):

    tune      200 rows of validation     choosing alpha; their texts (not their labels) also profile neurons
    dev       the other 2290 rows        reported numbers where the test split is not at hand
    test      the Hub's own test split, whole
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from datasets import Dataset

XquadSplit = Literal["profile", "tune", "test"]
XnliSplit = Literal["tune", "dev"]

XQUAD_PARAGRAPHS = 240
PARAGRAPHS_PER_ARTICLE = 5
PROFILE_QUESTIONS = 100
TUNE_QUESTIONS = 200

XNLI_ROWS = 2490
HYPOTHESES_PER_PREMISE = 3
XNLI_TUNE_ROWS = 200


def xquad_split(question_id: str) -> XquadSplit:
    """The split of one XQuAD question.

    Args:
        question_id: The `id` column, 24 hexadecimal digits, the same in every language.

    Returns:
        `profile` or `tune` for the ids in `data/xquad_splits.json`, `test` for every other id.
    """
    return _xquad_table().get(question_id, "test")


def xnli_split(row: int) -> XnliSplit:
    """The split of one row of XNLI's validation split.

    `tune` is the 66 premises (198 rows, one of each label per premise) that come first by SHA-256 and the first two
    rows of the 67th, to make exactly 200. That premise's third row is in `dev`: it is the only premise that is in
    both splits.

    Args:
        row: Position in the validation split, 0 to 2489, the same in every language.

    Raises:
        ValueError: If `row` is not a position in XNLI's validation split.
    """
    if not 0 <= row < XNLI_ROWS:
        raise ValueError(f"XNLI's validation split has rows 0 to {XNLI_ROWS - 1}, there is no row {row}")
    return "tune" if row in _xnli_tune() else "dev"


def premise_of(row: int) -> int:
    """The number of the premise of a row of XNLI's validation or test split: the three hypotheses of one stand together."""
    return row // HYPOTHESES_PER_PREMISE


def xquad_rows(dataset: Dataset, split: XquadSplit) -> Dataset:
    """The rows of one of our XQuAD splits, in their original order.

    Args:
        dataset: Rows with an `id` column: the Hub's `validation` split of any language, or a part of it.
        split: `profile`, `tune` or `test`.

    Raises:
        ValueError: If there is no such split.
    """
    _check(split, get_args(XquadSplit), "XQuAD")
    return dataset.select([row for row, key in enumerate(dataset["id"]) if xquad_split(key) == split])


def xnli_rows(dataset: Dataset, split: XnliSplit) -> Dataset:
    """The rows of one of our XNLI splits, in their original order.

    Args:
        dataset: The Hub's `validation` split of any language, whole, because a row's position is its id.
        split: `tune` or `dev`.

    Raises:
        ValueError: If there is no such split, or the data set is not the whole validation split.
    """
    _check(split, get_args(XnliSplit), "XNLI's validation split")
    if len(dataset) != XNLI_ROWS:
        raise ValueError(
            f"XNLI rows are known by their position among the {XNLI_ROWS} of the validation split; got {len(dataset)}"
        )
    return dataset.select([row for row in range(XNLI_ROWS) if xnli_split(row) == split])


def make_xquad_table(ids: Sequence[str], contexts: Sequence[str]) -> dict[str, list[str]]:
    """Makes the table in `data/xquad_splits.json` from XQuAD's English rows.

    The rows have no title, so the table ships with the package: an id alone does not tell its article. The rows are in
    article order, each paragraph's questions stand together, and every article has five paragraphs. To make the file
    again:

        rows = datasets.load_dataset("google/xquad", "xquad.en")["validation"]
        json.dumps(make_xquad_table(rows["id"], rows["context"]), indent=1)

    Args:
        ids: The `id` column, 1190 strings.
        contexts: The `context` column, 1190 strings.

    Returns:
        The ids of `profile` and of `tune`, each in row order.

    Raises:
        ValueError: If the rows are not 240 paragraphs in a row.
    """
    paragraphs = [[key for key, _ in rows] for _, rows in groupby(zip(ids, contexts, strict=True), lambda row: row[1])]
    if len(paragraphs) != XQUAD_PARAGRAPHS:
        raise ValueError(f"expected {XQUAD_PARAGRAPHS} paragraphs, each in one piece, got {len(paragraphs)}")
    articles = [
        [key for paragraph in paragraphs[start : start + PARAGRAPHS_PER_ARTICLE] for key in paragraph]
        for start in range(0, XQUAD_PARAGRAPHS, PARAGRAPHS_PER_ARTICLE)
    ]
    ordered = iter(sorted(articles, key=lambda article: _digest(article[0])))
    chosen = {"profile": _take(ordered, PROFILE_QUESTIONS), "tune": _take(ordered, TUNE_QUESTIONS)}
    return {split: [key for key in ids if key in keys] for split, keys in chosen.items()}


def _take(articles: Iterable[list[str]], questions: int) -> set[str]:
    """Takes whole articles from the front until there are at least so many questions."""
    taken: set[str] = set()
    for article in articles:
        taken.update(article)
        if len(taken) >= questions:
            break
    return taken


@cache
def _xquad_table() -> dict[str, XquadSplit]:
    """Split by question id, for the ids that are not in `test`."""
    text = resources.files("lm_eval_clas").joinpath("data/xquad_splits.json").read_text(encoding="utf-8")
    table = json.loads(text)
    splits: tuple[XquadSplit, ...] = ("profile", "tune")
    return {key: split for split in splits for key in table[split]}


@cache
def _xnli_tune() -> frozenset[int]:
    """Row indices of the tune split."""
    premises = sorted(range(XNLI_ROWS // HYPOTHESES_PER_PREMISE), key=lambda premise: _digest(f"xnli-{premise}"))
    rows = [HYPOTHESES_PER_PREMISE * premise + i for premise in premises for i in range(HYPOTHESES_PER_PREMISE)]
    return frozenset(rows[:XNLI_TUNE_ROWS])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _check(split: str, known: tuple[str, ...], data: str) -> None:
    if split not in known:
        raise ValueError(f"{data} has no split {split!r}, only {', '.join(known)}")
