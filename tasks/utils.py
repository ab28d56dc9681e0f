"""What the YAML files here name with `!function`: rows of our splits, the mini data, and the scores of an answer.

The `language` column tells a steered model the language of a request; other models ignore it. The `cluster` column says which
items hang together, as questions of one passage and hypotheses of one premise do, by the same marks in all languages.
"""

from __future__ import annotations

import json
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.texts.answer_measures import in_language, repetition
from lm_eval_clas.texts.corpora import load_hub
from lm_eval_clas.texts.gold_measures import gold_rank, nats_per_byte
from lm_eval_clas.texts.metrics import exact_match, f1, f1_lang
from lm_eval_clas.texts.prompt_words import WORDS
from lm_eval_clas.texts.splits import premise_of, xnli_rows, xquad_rows

if TYPE_CHECKING:
    from datasets import Dataset


def with_language(dataset: Dataset) -> Dataset:
    """Adds the column `language`, from the name of the Hub configuration (`hi`, `xquad.hi`)."""
    language = dataset.info.config_name.split(".")[-1]
    return dataset.add_column("language", [language] * len(dataset))


# Columns are added before rows are chosen: adding one to a selection would copy the rows to the cache on disk.


def xnli(dataset: Dataset) -> Dataset:
    """All rows, with `language` and `cluster`."""
    clusters = [f"premise {premise_of(row)}" for row in range(len(dataset))]
    return with_language(dataset).add_column("cluster", clusters)


def xnli_dev(dataset: Dataset) -> Dataset:
    return xnli_rows(xnli(dataset), "dev")


def xnli_tune(dataset: Dataset) -> Dataset:
    return xnli_rows(xnli(dataset), "tune")


def xquad(dataset: Dataset) -> Dataset:
    """All rows, with `language` and `cluster`: the questions of one passage stand together."""
    passages = [number for number, (_, rows) in enumerate(groupby(dataset["context"])) for _ in rows]
    return with_language(dataset).add_column("cluster", [f"passage {number}" for number in passages])


def xquad_profile(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad(dataset), "profile")


def xquad_tune(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad(dataset), "tune")


def xquad_test(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad(dataset), "test")


def xquad_gold(dataset: Dataset) -> Dataset:
    """All rows of `xquad` with two columns more.

    `choices` are the gold answers to all questions of the passage, one where questions share it; `gold` is the place of the
    question's own.
    """
    marked = xquad(dataset)
    answers = [answer["text"][0] for answer in marked["answers"]]
    of_passage: dict[str, dict[str, int]] = {}
    for passage, answer in zip(marked["cluster"], answers, strict=True):
        known = of_passage.setdefault(passage, {})
        known.setdefault(answer, len(known))
    found = [of_passage[passage] for passage in marked["cluster"]]
    gold = [known[answer] for known, answer in zip(found, answers, strict=True)]
    return marked.add_column("choices", [list(known) for known in found]).add_column("gold", gold)


def xquad_gold_profile(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad_gold(dataset), "profile")


def xquad_gold_tune(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad_gold(dataset), "tune")


def xquad_gold_test(dataset: Dataset) -> Dataset:
    return xquad_rows(xquad_gold(dataset), "test")


def mini(mini_language: str, **_: Any) -> dict[str, Dataset]:
    """The mini data of one language, in the columns of XQuAD and of XNLI.

    Args:
        mini_language: Code of a file in `lm_eval_clas/data/mini`. The harness passes `--model_args` along in the same
            call, so the name is one that no model takes.

    Returns:
        `qa`: one row per line of the file; `nli`: three, with labels 0 entailment, 1 neutral, 2 contradiction.
    """
    from datasets import Dataset

    text = resources.files("lm_eval_clas").joinpath(f"data/mini/{mini_language}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    qa = [
        {
            "id": row["id"],
            "context": row["passage"],
            "question": row["question"],
            "answers": {"text": [row["answer"]], "answer_start": [row["passage"].find(row["answer"])]},
            "language": mini_language,
        }
        for row in rows
    ]
    nli = [
        {
            "id": f"{row['id']}-{relation}",
            "premise": row["premise"],
            "hypothesis": row[relation],
            "label": label,
            "language": mini_language,
            "cluster": row["id"],
        }
        for row in rows
        for label, relation in enumerate(("entailment", "neutral", "contradiction"))
    ]
    return {"qa": Dataset.from_list(qa), "nli": Dataset.from_list(nli)}


def open_questions(question_language: str, asked_language: str, **_: Any) -> dict[str, Dataset]:
    """The open questions of the package in one language, to be answered in the same or another.

    Args:
        question_language: Code of a file in `lm_eval_clas/data/open`. As `mini_language`, no name that a model takes.
        asked_language: Code of the language that answers are to be in.

    Returns:
        `test`: one row per line of the file.
    """
    from datasets import Dataset

    text = resources.files("lm_eval_clas").joinpath(f"data/open/{question_language}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    return {"test": Dataset.from_list([{**row, "language": asked_language} for row in rows])}


def bench_questions(question_language: str, asked_language: str, **_: Any) -> dict[str, Dataset]:
    """The questions of CLaS-Bench in one language, to be answered in the same or another; arguments as above.

    Raises:
        ClasError: they are not to be had.
    """
    from datasets import Dataset

    loaded = load_hub("DGurgurov/CLaS-Bench", None, "train", "clas_open, whose questions ship")
    rows = list(loaded) if {"language_code", "question_id", "question"} <= set(loaded.column_names) else []
    chosen = [row for row in rows if row["language_code"] == question_language]
    if not chosen:
        raise ClasError(
            f"DGurgurov/CLaS-Bench has no questions in '{question_language}' where they used to be; use clas_open, whose "
            "questions ship with the package."
        )
    kept = [{"id": str(row["question_id"]), "question": row["question"], "language": asked_language} for row in chosen]
    return {"test": Dataset.from_list(kept)}


def qa_scores(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Scores of one generated answer, 0 to 1."""
    prediction, golds = results[0].strip(), doc["answers"]["text"]
    return {
        "exact_match": exact_match(prediction, golds),
        "f1": f1(prediction, golds),
        "f1_lang": f1_lang(prediction, golds, doc["language"]),
    }


def gold_answer_scores(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Nats per byte of the gold answer, and its rank by the same among the answers of its passage, which differ in length."""
    scores = [nats_per_byte(found, choice) for (found, _), choice in zip(results, doc["choices"], strict=True)]
    return {"nats_per_byte": scores[doc["gold"]], "gold_rank": gold_rank(scores, doc["gold"])}


def gold_label_scores(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Nats per byte of the right one of yes, maybe and no, and its rank: 1 where `acc` takes the answer for right."""
    found, label = [score for score, _ in results], doc["label"]
    return {
        "nats_per_byte": nats_per_byte(found[label], WORDS[doc["language"]].choices[label]),
        "gold_rank": gold_rank(found, label),
    }


def open_scores(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether a free answer is in the asked language, and how much it repeats itself."""
    return {"in_language": in_language(results[0], doc["language"]), "repetition": repetition(results[0])}
