"""Open questions: parallel and in their languages; what is measured of free answers; and the tasks, run by the harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks import TaskManager
from logged_runs import logged_run
from small_models import Run

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.disk.files import PACKAGE, shipped
from lm_eval_clas.harness.task_loading import tasks_of
from lm_eval_clas.languages.task_names import from_task_name, task_family
from lm_eval_clas.texts.answer_measures import in_language, repetition
from lm_eval_clas.texts.corpora import BENCH_LANGUAGES, MINI_LANGUAGES

LATIN = ("de", "en", "es", "fr", "ro", "sw", "tr", "vi")


def questions(language: str) -> dict[str, str]:
    lines = (PACKAGE / "data" / "open" / f"{language}.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row["question"] for row in map(json.loads, lines)}


def load(*names: str) -> dict[str, Any]:
    return tasks_of(TaskManager(include_path=str(shipped("tasks")), include_defaults=False), list(names))


# The questions


def test_questions_are_parallel_and_each_is_another() -> None:
    assert sorted(path.stem for path in (PACKAGE / "data" / "open").iterdir()) == list(MINI_LANGUAGES)
    every = {language: questions(language) for language in MINI_LANGUAGES}
    assert {tuple(one) for one in every.values()} == {tuple(f"open-{number:02}" for number in range(1, 25))}
    asked = [question for one in every.values() for question in one.values()]
    assert len(set(asked)) == 24 * 16
    assert all(question == question.strip() for question in asked)


@pytest.mark.parametrize("language", MINI_LANGUAGES)
def test_questions_are_in_their_language(language: str) -> None:
    for question in questions(language).values():
        assert in_language(question, language) == 1, question
        assert question[-1] in {"el": ";", "ar": "؟", "ur": "؟", "zh": "？"}.get(language, "?") or language == "th"
        if language not in LATIN:
            assert not any(char.isascii() and char.isalpha() for char in question), question


# The measures

SENTENCES = {
    "ar": "يشرب الناس الشاي في الصباح مع عائلاتهم.",
    "bg": "Хората обичат да пият чай сутрин със своите близки.",
    "de": "Die Leute trinken morgens gern Tee mit ihrer Familie.",
    "el": "Οι άνθρωποι πίνουν τσάι το πρωί με την οικογένειά τους.",
    "en": "People like to drink tea in the morning with their family.",
    "hi": "लोग सुबह अपने परिवार के साथ चाय पीना पसंद करते हैं।",
    "ja": "人々は朝、家族と一緒にお茶を飲むのが好きです。",
    "ru": "Люди любят пить чай утром вместе со своей семьёй.",
    "th": "ผู้คนชอบดื่มชาในตอนเช้ากับครอบครัว",
    "ur": "لوگ صبح اپنے گھر والوں کے ساتھ چائے پینا پسند کرتے ہیں۔",
    "zh": "人们喜欢早上和家人一起喝茶。",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_an_answer_is_in_one_language(language: str) -> None:
    """Others of the same script (ar and ur, bg and ru, de and en, ja and zh) are not taken for it."""
    assert [asked for asked in SENTENCES if in_language(SENTENCES[language], asked)] == [language]


@pytest.mark.parametrize(
    ("answer", "asked", "found"),
    [
        *(("", "hi", 0), ("  \n", "hi", 0), ("42 - 17?!", "hi", 0), ("।।।", "hi", 0)),
        ("log subah apne parivar ke saath chai peena pasand karte hain", "hi", 0),  # Hindi in Latin letters
        ("चाय: people like to drink tea in the morning with their family", "hi", 0),  # a word in front
        ("हाँ, चाय पीना बहुत अच्छा लगता है (tea, 3).", "hi", 1),
        ("人們喜歡早上和家人一起喝茶。", "zh", 1),  # traditional
        ("བོད་མི་རྣམས་ཞོགས་པར་ཇ་འཐུང་བར་དགའ།", "bo", 1),  # which detection does not know: by script
        ("People drink tea.", "bo", 0),
    ],
)
def test_script_and_detection_must_both_agree(answer: str, asked: str, found: int) -> None:
    assert in_language(answer, asked) == found


def test_a_language_that_nothing_can_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="'chr'"):
        in_language("ᎣᏏᏲ", "chr")


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        *(("", 0), ("one two three", 0), ("one two three four", 0), ("...", 0)),
        ("a b c d a b c d", 1 / 5),  # abcd bcda cdab dabc abcd
        ("Ja! Ja, ja ja: JA ja.", 2 / 3),  # six words, three runs, one and the same
        ("the cat sat on the mat and the cat sat on the rug", 2 / 10),  # the-cat-sat-on, cat-sat-on-the
        ("नदी गाँव नदी गाँव नदी गाँव नदी", 2 / 4),
        ("我爱你我爱你我爱你", 3 / 6),  # characters: nine, in six runs of three kinds
        ("กขคงกขคง", 1 / 5),
        ("ha " * 64, 60 / 61),
        ("γ" * 64, 60 / 61),  # a word that is too long for one
        ("Donaudampfschifffahrtsgesellschaft " * 2, 0),
    ],
)
def test_repetition_by_hand(answer: str, share: float) -> None:
    assert repetition(answer) == pytest.approx(share)


# The tasks


def test_questions_and_the_language_asked_for() -> None:
    own, forced = load("clas_open_hi", "clas_open_force_hi").values()
    assert len(own.eval_docs) == len(forced.eval_docs) == 24
    assert {doc["language"] for task in (own, forced) for doc in task.eval_docs} == {"hi"}
    assert own.doc_to_text(own.eval_docs[1]) == "प्रश्न: लोग रात को क्यों सोते हैं?\nउत्तर:"
    assert forced.doc_to_text(forced.eval_docs[1]) == "Question: Why do people sleep at night?\nAnswer:"
    request = forced.construct_requests(forced.eval_docs[1], "prompt", metadata=("clas_open_force_hi", 1, 1))
    assert request.args == ("prompt", {"until": ["\n\n", "\nQuestion:"], "max_gen_toks": 64, "do_sample": False})
    doc = forced.eval_docs[1]
    assert forced.process_results(doc, [" " + SENTENCES["hi"]]) == {"in_language": 1, "repetition": 0}
    assert forced.process_results(doc, [" " + SENTENCES["en"]]) == {"in_language": 0, "repetition": 0}
    assert forced.process_results(doc, ["लोग चाय पीते हैं। " * 9]) == {"in_language": 1, "repetition": pytest.approx(29 / 33)}


def test_names_of_all_open_tasks_are_read() -> None:
    for name in ("clas_open", "clas_open_force", "clas_bench", "clas_bench_force"):
        for language in MINI_LANGUAGES if "open" in name else BENCH_LANGUAGES:
            task = f"{name}_{'bod' if language == 'bo' else language}"
            assert (from_task_name(task), task_family(task)) == (language, name)


def test_a_run_forces_languages_side_by_side(tmp_path: Path, checkpoint: Path, masks: MaskSet, clas: Run) -> None:
    """English questions are steered towards the language that each task asks for, and a table has both measures."""
    names = ["clas_open_force_hi", "clas_open_force_de", "clas_open_hi"]
    for label, alpha in (("hf", 0), ("clas", -3)):
        results = logged_run(tmp_path / label, checkpoint, masks, names, alpha=alpha)
    told = json.loads(results.read_text("utf-8"))["config"]["clas"]
    assert {language: one["recognized"] for language, one in told["languages"].items()} == {"de": {"doc": 3}, "hi": {"doc": 6}}
    assert {language: seen["requests"] for language, seen in told["witness"].items()} == {"de": 3, "hi": 6}
    runs = read_runs([f"{label}={tmp_path / label}" for label in ("hf", "clas")])
    found = compare(runs, "clas_open_force", baseline="hf")
    assert (found.metric, found.unit, found.languages, found.higher_is_better) == (
        "in_language",
        "shares of 1",
        ["de", "hi"],
        True,
    )
    repeated = compare(runs, "clas_open_force", "repetition", baseline="hf")
    assert (repeated.unit, repeated.higher_is_better) == ("shares of 1", False)


# CLaS-Bench


def bench(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | None) -> None:
    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        assert (path, name, split) == ("DGurgurov/CLaS-Bench", None, "train")
        if rows is None:
            raise ConnectionError("Couldn't reach 'DGurgurov/CLaS-Bench' on the Hub (offline)")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_questions_of_clas_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(code, number, f"{code} {number}?") for number in (7, 8) for code in ("en", "no", "bo")]
    bench(monkeypatch, [dict(zip(("language_code", "question_id", "question"), one, strict=True)) for one in asked])
    for name, language, first in (
        ("clas_bench_no", "no", "no 7?"),
        ("clas_bench_force_no", "no", "en 7?"),
        ("clas_bench_bod", "bo", "bo 7?"),
    ):
        (task,) = load(name).values()
        assert [(doc["id"], doc["language"]) for doc in task.eval_docs] == [("7", language), ("8", language)]
        assert task.doc_to_text(task.eval_docs[0]) == first


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            None,
            "Cannot load DGurgurov/CLaS-Bench: Couldn't reach 'DGurgurov/CLaS-Bench' on the Hub (offline). Check the "
            "connection to the Hub, or use clas_open, whose questions ship with the package.",
        ),
        (
            [{"language_code": "xx", "question_id": 1, "question": "?"}],
            "DGurgurov/CLaS-Bench has no questions in 'en' where they used to be; use clas_open, whose questions ship with the "
            "package.",
        ),
        (
            [{"lang": "en"}],
            "DGurgurov/CLaS-Bench has no questions in 'en' where they used to be; use clas_open, whose questions ship with the "
            "package.",
        ),
    ],
)
def test_clas_bench_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch, rows: Any, said: str) -> None:
    bench(monkeypatch, rows)
    with pytest.raises(ClasError) as caught:
        load("clas_bench_force_hi")
    assert str(caught.value) == said
