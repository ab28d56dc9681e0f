"""The tasks, as the harness loads them. No model is run."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import hub_data
import pytest

pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager

from lm_eval_clas.harness.task_loading import tasks_of

TASKS = Path(__file__).resolve().parents[2] / "tasks"
XNLI = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
XQUAD = ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]
MINI = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
BENCH = [
    "ar",
    "bod",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "fa",
    "fr",
    "hi",
    "id",
    "it",
    "ja",
    "ka",
    "kk",
    "ko",
    "mt",
    "nl",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sv",
    "sw",
    "th",
    "tr",
    "uk",
    "vi",
    "zh",
]  # bod is `bo`
GROUPS = {
    "clas_xnli": XNLI,
    "clas_xnli_dev": XNLI,
    "clas_xnli_tune": XNLI,
    "clas_xnli_gold": XNLI,
    "clas_xnli_gold_dev": XNLI,
    "clas_xnli_gold_tune": XNLI,
    "clas_xquad": XQUAD,
    "clas_xquad_tune": XQUAD,
    "clas_xquad_gold": XQUAD,
    "clas_xquad_gold_tune": XQUAD,
    "clas_open": MINI,
    "clas_open_force": [language for language in MINI if language != "en"],
    "clas_bench": BENCH,
    "clas_bench_force": [language for language in BENCH if language != "en"],
    "clas_mini_qa": MINI,
    "clas_mini_nli": MINI,
}
FREE = ["in_language", "repetition"]
METRICS = {
    "_gold": ["nats_per_byte", "gold_rank"],
    "nli": ["acc"],
    "_open": FREE,
    "_bench": FREE,
}  # by a part of the name; the first that fits


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clas_tasks_generate", TASKS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


generate = load_generator()


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_path=str(TASKS), include_defaults=False)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test in another working directory."""
    monkeypatch.chdir(tmp_path)


def prompt(task: Any, doc: dict[str, Any], shots: int = 0) -> str:
    task.set_fewshot_seed(1)
    text = task.fewshot_context(doc, num_fewshot=shots)
    assert isinstance(text, str)
    return text


def check_docs(tasks: dict[str, Any], sizes: tuple[int, int]) -> None:
    """Every doc has its language, and the few-shot pool is of other rows."""
    for name, task in tasks.items():
        docs, pool = list(task.eval_docs), list(task.sampler.df)
        assert (len(docs), len(pool)) == sizes, name
        assert {doc["language"] for doc in docs} == {doc["language"] for doc in pool} == {name.rsplit("_", 1)[1]}


# The files


def test_files_are_what_the_generator_makes() -> None:
    made = generate.files()
    there = {path.relative_to(TASKS).as_posix(): path.read_text("utf-8") for path in TASKS.glob("*/*.yaml")}
    assert there == made


def test_check_says_what_is_out_of_step(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    shutil.copytree(TASKS, folder)

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "generate.py"), "--check"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 0
    (folder / "xnli" / "clas_xnli_hi.yaml").write_text("task: clas_xnli_hi\n", "utf-8")
    (folder / "xnli" / "clas_xnli_xx.yaml").write_text("task: clas_xnli_xx\n", "utf-8")
    (folder / "xquad" / "clas_xquad_hi.yaml").unlink()
    result = check()
    assert result.returncode == 1
    named = sorted(line.rsplit(" ", 1)[1] for line in result.stderr.splitlines())
    assert named == ["xnli/clas_xnli_hi.yaml", "xnli/clas_xnli_xx.yaml", "xquad/clas_xquad_hi.yaml"]

    subprocess.run([sys.executable, str(folder / "generate.py")], capture_output=True, check=True)
    assert check().returncode == 0


def config_of(manager: TaskManager, name: str) -> dict[str, Any]:
    entry = manager.task_index[name]
    return entry.cfg if hasattr(entry, "cfg") else manager._get_config(name)  # before 0.4.12


def test_exactly_these_names_are_registered(manager: TaskManager) -> None:
    tasks = {f"{group}_{language}" for group, languages in GROUPS.items() for language in languages}
    assert set(manager.all_subtasks) == tasks  # so no template is taken for a task
    assert set(manager.all_groups) == {*GROUPS, "clas_mini"}
    assert manager.all_tags == []


@pytest.mark.parametrize("group", GROUPS)
def test_groups_list_all_their_languages(manager: TaskManager, group: str) -> None:
    config = config_of(manager, group)
    assert config["task"] == [f"{group}_{language}" for language in GROUPS[group]]
    metrics = next((found for part, found in METRICS.items() if part in group), ["exact_match", "f1", "f1_lang"])
    assert config["aggregate_metric_list"] == [
        {"metric": metric, "aggregation": "mean", "weight_by_size": False} for metric in metrics
    ]


def test_every_task_has_a_version(manager: TaskManager) -> None:
    for name in manager.task_index:
        first = name in manager.all_groups or any(kind in name for kind in ("_gold", "_open", "_bench"))
        assert config_of(manager, name)["metadata"]["version"] == (1.0 if first else 1.1), name


# The words


def test_no_choice_begins_with_another() -> None:
    for language, words in generate.WORDS.items():
        choices = [words.yes.casefold(), words.maybe.casefold(), words.no.casefold()]
        for choice in choices:
            assert sum(other.startswith(choice) for other in choices) == 1, language


def test_words_have_no_loose_ends() -> None:
    assert sorted(generate.WORDS) == MINI
    for words in generate.WORDS.values():
        for word in vars(words).values():
            assert word
            assert word == word.strip()
        assert all(label.endswith(":") for label in (words.context, words.question, words.answer))
        assert words.ask[-1] in "?؟;？"


# XQuAD


@pytest.mark.hub_data(hub_data.XQUAD)
@pytest.mark.parametrize(("group", "sizes"), [("clas_xquad", (871, 111)), ("clas_xquad_tune", (208, 111))])
def test_xquad(manager: TaskManager, elsewhere: None, group: str, sizes: tuple[int, int]) -> None:
    tasks = tasks_of(manager, [group])
    assert list(tasks) == [f"{group}_{language}" for language in XQUAD]
    check_docs(tasks, sizes)
    for task in tasks.values():
        assert not set(task.eval_docs["context"]) & {doc["context"] for doc in task.sampler.df}


@pytest.mark.hub_data(hub_data.XQUAD)
def test_xquad_prompt(manager: TaskManager) -> None:
    task = tasks_of(manager, ["clas_xquad_es"])["clas_xquad_es"]
    doc = task.eval_docs[0]
    question = f"Contexto: {doc['context'].strip()}\nPregunta: ¿Cuántos puntos dejaron escapar en defensa los Panthers?"
    assert prompt(task, doc) == f"{question}\nRespuesta:"
    assert task.doc_to_target(doc) == "308"

    blocks = prompt(task, doc, shots=2).split("\n\n")
    assert blocks[-1] == f"{question}\nRespuesta:"
    answers = {(shot["question"].strip(), shot["answers"]["text"][0]) for shot in task.sampler.df}
    for block in blocks[:-1]:
        asked, answered = block.rsplit("\nPregunta: ", 1)[1].split("\nRespuesta: ")
        assert (asked, answered) in answers


@pytest.mark.hub_data(hub_data.XQUAD)
def test_xquad_generation_and_scores(manager: TaskManager) -> None:
    task = tasks_of(manager, ["clas_xquad_zh"])["clas_xquad_zh"]
    doc = task.eval_docs[0]
    request = task.construct_requests(doc, "prompt", metadata=("clas_xquad_zh", 0, 1))
    assert request.args == ("prompt", {"until": ["\n"], "max_gen_toks": 32, "do_sample": False})
    doc = {**doc, "answers": {"text": ["北京大学医院"], "answer_start": [0]}}
    scores = task.process_results(doc, [" 北京大学"])
    # 4 characters of 4, and of 6; for SQuAD's F1 each answer is one token
    assert scores == {"exact_match": 0.0, "f1": 0.0, "f1_lang": pytest.approx(0.8)}
    assert task.process_results(doc, [" 北京大学医院"]) == {"exact_match": 1.0, "f1": 1.0, "f1_lang": 1.0}


# XNLI


@pytest.mark.hub_data(hub_data.XNLI)
@pytest.mark.parametrize(("group", "sizes"), [("clas_xnli_dev", (2290, 200)), ("clas_xnli_tune", (200, 2290))])
def test_xnli(manager: TaskManager, elsewhere: None, group: str, sizes: tuple[int, int]) -> None:
    tasks = tasks_of(manager, [group])
    assert list(tasks) == [f"{group}_{language}" for language in XNLI]
    check_docs(tasks, sizes)


@pytest.mark.hub_data(hub_data.XNLI)
def test_xnli_prompt_and_gold(manager: TaskManager) -> None:
    task = tasks_of(manager, ["clas_xnli_dev_sw"])["clas_xnli_dev_sw"]
    doc = task.eval_docs[0]
    assert prompt(task, doc) == (
        "Naye akasema, Mama, niko nyumbani.\n"
        "Swali: Alimwita mama yake mara tu basi ya shule ilipomshukisha. Ndiyo, hapana, au labda?\n"
        "Jibu:"
    )
    assert task.doc_to_choice(doc) == ["Ndiyo", "Labda", "Hapana"]
    assert task.doc_to_target(doc) == doc["label"] == 1
    requests = task.construct_requests(doc, "prompt", metadata=("clas_xnli_dev_sw", 0, 1))
    assert [request.args for request in requests] == [("prompt", " Ndiyo"), ("prompt", " Labda"), ("prompt", " Hapana")]


def test_xnli_test_split(manager: TaskManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's test split whole, with few-shot examples from the tune rows of validation."""

    def load_dataset(path: str, name: str, **_: Any) -> dict[str, datasets.Dataset]:
        assert path == "facebook/xnli"
        parts = {}
        for split, rows in (("validation", 2490), ("test", 5010)):
            texts = [f"{split} {row}" for row in range(rows)]
            labels = [row % 3 for row in range(rows)]
            parts[split] = datasets.Dataset.from_dict({"premise": texts, "hypothesis": texts, "label": labels})
            parts[split].info.config_name = name
        return parts

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tasks = tasks_of(manager, ["clas_xnli"])
    assert list(tasks) == [f"clas_xnli_{language}" for language in XNLI]
    check_docs(tasks, (5010, 200))
    task = tasks["clas_xnli_de"]
    assert prompt(task, task.eval_docs[2]) == "test 2\nFrage: test 2 Ja, nein oder vielleicht?\nAntwort:"
    assert "validation" in prompt(task, task.eval_docs[2], shots=1)


# The mini tasks need no network and no cache


@pytest.fixture(scope="module")
def mini(manager: TaskManager) -> dict[str, Any]:
    return tasks_of(manager, ["clas_mini"])


def test_mini_docs(mini: dict[str, Any], elsewhere: None) -> None:
    assert set(mini) == {f"clas_mini_{kind}_{language}" for kind in ("qa", "nli") for language in MINI}
    check_docs({name: task for name, task in mini.items() if "_qa_" in name}, (16, 16))
    check_docs({name: task for name, task in mini.items() if "_nli_" in name}, (48, 48))


@pytest.mark.parametrize("language", MINI)
def test_mini_prompts(mini: dict[str, Any], language: str) -> None:
    words = generate.WORDS[language]

    task = mini[f"clas_mini_qa_{language}"]
    doc = task.eval_docs[0]
    assert prompt(task, doc) == (f"{words.context} {doc['context']}\n{words.question} {doc['question']}\n{words.answer}")
    assert task.doc_to_target(doc) in doc["context"]
    assert task.process_results(doc, [f" {task.doc_to_target(doc)}"]) == {"exact_match": 1.0, "f1": 1.0, "f1_lang": 1.0}

    task = mini[f"clas_mini_nli_{language}"]
    for doc, choice in zip(task.eval_docs.select(range(3)), (words.yes, words.maybe, words.no), strict=True):
        assert prompt(task, doc) == (f"{doc['premise']}\n{words.question} {doc['hypothesis']} {words.ask}\n{words.answer}")
        assert task.doc_to_choice(doc)[task.doc_to_target(doc)] == choice


def test_mini_gold(mini: dict[str, Any]) -> None:
    docs = mini["clas_mini_nli_en"].eval_docs
    assert [(doc["hypothesis"], doc["label"]) for doc in docs.select(range(3))] == [
        ("The oven did not work.", 0),
        ("The baker repaired the oven in the evening.", 1),
        ("The shop stayed open all day.", 2),
    ]


def test_mini_few_shot_leaves_the_evaluated_doc_out(mini: dict[str, Any]) -> None:
    task = mini["clas_mini_qa_en"]
    doc = task.eval_docs[0]
    text = prompt(task, doc, shots=15)
    assert text.count(doc["question"]) == 1
    assert text.count("Question:") == 16


def test_mini_loads_whatever_the_model_arguments_are() -> None:
    """The harness hands `--model_args` to a custom data set, and `language` is one of the steering model's."""
    manager = TaskManager(
        include_path=str(TASKS), include_defaults=False, metadata={"language": "hi", "pretrained": "x", "alpha": "1"}
    )
    task = tasks_of(manager, ["clas_mini_qa_de"])["clas_mini_qa_de"]
    assert task.eval_docs[0]["language"] == "de"
