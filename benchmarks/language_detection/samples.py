"""The texts: XNLI and XQuAD rows, in short, medium and long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from libraries import XNLI_LANGUAGES, XQUAD_LANGUAGES, Row


@dataclass(frozen=True)
class Condition:
    """One kind of text: the dataset it comes from and how to make it from a row."""

    name: str
    dataset: str
    text: Callable[[Row], str]


@dataclass(frozen=True)
class Sample:
    language: str
    text: str


CONDITIONS = (
    Condition("short, XNLI hypothesis", "facebook/xnli", lambda row: row["hypothesis"]),
    Condition("short, XQuAD question", "google/xquad", lambda row: row["question"]),
    Condition(
        "short, XQuAD question in an English template",
        "google/xquad",
        lambda row: f"Question: {row['question']}\nAnswer:",
    ),
    Condition(
        "medium, XNLI premise + hypothesis",
        "facebook/xnli",
        lambda row: f"{row['premise']} {row['hypothesis']}",
    ),
    Condition("long, XQuAD context", "google/xquad", lambda row: row["context"]),
)
PLAIN_SHORT = CONDITIONS[:2]
SPEED_CONDITIONS = {"short": CONDITIONS[0], "long": CONDITIONS[-1]}


def load_samples(rows: int, seed: int) -> dict[str, list[Sample]]:
    """The samples of each condition: for each language, `rows` distinct texts, or all of them where there are fewer."""
    load_dataset = import_module("datasets").load_dataset
    import_module("datasets.utils.logging").set_verbosity_error()
    samples: dict[str, list[Sample]] = {condition.name: [] for condition in CONDITIONS}
    for path, prefix, languages in (
        ("facebook/xnli", "", XNLI_LANGUAGES),
        ("google/xquad", "xquad.", XQUAD_LANGUAGES),
    ):
        for language in languages:
            data: list[dict[str, Any]] = load_dataset(path, prefix + language)["validation"].to_list()
            for condition in CONDITIONS:
                if condition.dataset != path:
                    continue
                texts = list(dict.fromkeys(condition.text(row) for row in data))
                if len(texts) > rows:
                    texts = random.Random(f"{seed}/{condition.name}/{language}").sample(texts, rows)
                samples[condition.name] += [Sample(language, text) for text in texts]
    return samples


# --------------------------------------------------------------------------- what a library costs
