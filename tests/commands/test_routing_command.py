"""`clas route`: which language the requests of tasks get, from which evidence, steered or not and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_models import Run

from lm_eval_clas.languages.task_index import installed

TASK = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Answer the question: {{{{text}}}}"
doc_to_target: "{{{{text}}}}"
"""
TEXTS = {
    "de": "Der Storch baut im Frühling ein Nest auf dem Dach der alten Mühle am Rande des Dorfes.",
    "es": "La panadera abre su tienda antes de que salga el sol y vende todo el pan en una hora.",
}


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    for name, texts in {"wrongly_hi": ["de"] * 6, "either": ["de", "es"] * 3, "right_de": ["de"] * 6}.items():
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps({"text": TEXTS[one]}) + "\n" for one in texts), encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntag: all_of_mine{TASK.format(data=data)}")
    (tmp_path / "gone.yaml").write_text(f"task: gone_hi{TASK.format(data=tmp_path / 'missing.jsonl')}")
    return tmp_path


def routes(clas: Run, *arguments: object) -> list[dict[str, Any]]:
    code, out, error = clas("route", *arguments, "--json")
    assert code == 0, error
    found: list[dict[str, Any]] = json.loads(out)
    assert all(list(one) == ["task", "language", "source", "steered", "why"] for one in found)
    return found


def test_names_groups_tags_and_patterns(clas: Run) -> None:
    found = routes(clas, "xnli", "belebele_ar?_Arab,wmt16-de-en", "arc_easy", "--languages", "Hindi,ar,zh-Hant,en")
    by_task = {one["task"]: (one["language"], one["source"], one["steered"], one["why"]) for one in found}
    assert list(by_task)[:3] == ["xnli_ar", "xnli_bg", "xnli_de"]
    assert by_task["xnli_hi"] == ("hi", "task name", True, "in the masks")
    assert by_task["xnli_zh"] == ("zh", "task name", True, "in the masks")
    assert by_task["xnli_de"] == ("de", "task name", False, "not in the masks")
    assert by_task["xnli_en"] == ("en", "task name", False, "the anchor")
    assert by_task["belebele_arz_Arab"] == ("arz", "task name", True, "in the masks, as 'ar'")
    assert by_task["wmt16-de-en"] == (
        "en",
        "task name",
        False,
        "'de' and 'en' in its name, of which the target counts; the anchor",
    )
    assert by_task["arc_easy"] == (None, "detected", None, "its name gives no language, so its texts tell")
    assert {one["task"] for one in routes(clas, "ai2_arc")} == {"arc_easy", "arc_challenge"}


def test_pairs(clas: Run) -> None:
    (source,) = routes(clas, "wmt16-de-en", "--pair", "source", "--languages", "de")
    (off,) = routes(clas, "wmt16-de-en", "--pair", "off", "--languages", "de")
    assert (source["language"], source["steered"]) == ("de", True)
    assert (off["language"], off["steered"]) == ("und", False)
    assert off["why"] == "'de' and 'en' in its name, and neither counts"


def test_a_pair_that_may_be_a_language_with_a_region(clas: Run, tmp_path: Path) -> None:
    data = tmp_path / "qa.jsonl"
    data.write_text("".join(json.dumps({"text": f"{TEXTS['de']} {number}"}) + "\n" for number in range(12)), encoding="utf-8")
    (tmp_path / "qa.yaml").write_text(f"task: qa_de_it{TASK.format(data=data)}")
    (name,) = routes(clas, "qa_de_it", "--include-path", tmp_path)
    assert (name["language"], name["why"]) == (
        "it",
        "'de' and 'it' in its name, of which the target counts unless its texts are plainly in 'de' alone; no masks were given",
    )
    (texts,) = routes(clas, "qa_de_it", "--include-path", tmp_path, "--texts", 12)
    assert (texts["language"], texts["source"]) == ("de", "task name")


def test_masks_say_what_is_steered(clas: Run) -> None:
    (hindi, english) = routes(clas, "clas_xnli_hi", "clas_xnli_en", "--masks", "gemma-3-270m")
    assert (hindi["steered"], english["steered"]) == (True, False)
    assert routes(clas, "clas_xnli_hi")[0] | {"steered": None, "why": "no masks were given"} == routes(clas, "clas_xnli_hi")[0]


def test_all_names(clas: Run) -> None:
    found = {one["task"]: one["language"] for one in routes(clas, "all", "--languages", "hi")}
    assert set(installed().members) < set(found)
    assert found["clas_mini_qa_hi"] == "hi"
    assert found["mmmlu_es_la"] == "es"


def test_texts(clas: Run, own_tasks: Path) -> None:
    found = routes(clas, "all_of_mine", "gone_hi", "--texts", 4, "--include-path", own_tasks, "--languages", "de,hi,en")
    told = [(one["task"], one["language"], one["source"], one["steered"]) for one in found]
    assert told == [
        ("either", "de", "detected", True),
        ("either", "es", "detected", False),
        ("right_de", "de", "task name", True),
        ("wrongly_hi", "hi", "task name", True),  # four short texts are too few to overrule a name
        ("gone_hi", "hi", "task name", True),
    ]
    assert found[0]["why"] == "3 of 4 documents; in the masks"
    assert "its data cannot be loaded" in found[-1]["why"]
    (found,) = routes(clas, "wrongly_hi", "--texts", 6, "--include-path", own_tasks, "--languages", "de,hi,en")
    assert (found["language"], found["source"]) == ("de", "detected")


def test_texts_are_of_documents_all_over_a_task(clas: Run, tmp_path: Path) -> None:
    data = tmp_path / "mixed.jsonl"
    data.write_text("".join(json.dumps({"text": TEXTS[one]}) + "\n" for one in ["de"] * 30 + ["es"] * 30), encoding="utf-8")
    (tmp_path / "mixed.yaml").write_text(f"task: mixed{TASK.format(data=data)}")
    found = routes(clas, "mixed", "--texts", 20, "--include-path", tmp_path)
    assert {(one["language"], one["why"].split(";")[0]) for one in found} == {
        ("de", "10 of 20 documents"),
        ("es", "10 of 20 documents"),
    }


def test_the_table(clas: Run) -> None:
    code, out, _ = clas("route", "xnli_hi", "copal_id", "--languages", "hi")
    assert code == 0
    assert out.split("\n")[1].split() == ["task", "language", "from", "steered", "why"]
    assert "xnli_hi" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("xnli_h",), "There is no task, group or tag 'xnli_h'; the nearest names are xnli_zh, xnli_th, xnli_hi"),
        (("qqqqqqqq",), "There is no task, group or tag 'qqqqqqqq'; 'lm_eval ls tasks' lists them"),
        ((), "clas route needs the names of tasks, e.g. 'clas route xnli belebele_hin_Deva', or all."),
        (("xnli", "--languages", "hi,quux"), "--languages: 'quux' is not a language; give a code or a name, e.g. hi or Hindi."),
        (("xnli", "--languages", "hi", "--masks", "x"), "Give --masks or --languages, not both"),
        (("xnli", "--include-path", "/nowhere"), "--include-path: there is no folder '/nowhere'."),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str, clas: Run) -> None:
    code, _, error = clas("route", *arguments)
    assert code == 2
    assert sentence in " ".join(error.split())
