"""Which tasks the harness looks for (its own ten thousand files are read only where a name needs them), and how they load."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import numpy as np
import pytest
from lm_eval.evaluator import simple_evaluate

from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.task_loading import load_tasks, other_splits
from lm_eval_clas.languages.task_index import TaskIndex

TASK = "dataset_path: json\noutput_type: multiple_choice\n"


class AskedError(Exception):
    """Holds whether the harness's own tasks are asked for."""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.yaml").write_text(f"task: own_hi\ntag: own_tag\n{TASK}")
    (tmp_path / "group.yaml").write_text("group: own_group\ntask: [own_tag, {task: own_hi}]\n")
    (tmp_path / "mixed.yaml").write_text("group: mixed_group\ntask: [own_hi, {group: inner, task: [arc_easy]}]\n")
    (tmp_path / "outer.yaml").write_text("group: outer_group\ntask: [own_group, mixed_group]\n")
    (tmp_path / "over.yaml").write_text(f"task: arc_challenge\n{TASK}")
    return tmp_path


@pytest.mark.parametrize(
    ("names", "defaults"),
    [
        (["clas_mini", "clas_xquad_tune_hi", "clas_xnli"], False),
        (["own_hi", "own_tag", "own_group", "clas_mini_nli_hi"], False),
        (["arc_challenge"], False),  # a folder's task wins over the harness's
        (["own_hi", "arc_easy"], True),
        (["mixed_group"], True),
        (["outer_group"], True),
        (["own_h"], True),  # the sentence names what is near
    ],
)
def test_the_harness_reads_its_own_tasks_only_if_a_name_needs_them(
    own: Path, names: list[str], defaults: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Manager:
        def __init__(self, include_path: list[str], include_defaults: bool) -> None:
            assert include_path == [str(shipped("tasks")), str(own)]
            raise AskedError(include_defaults)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Manager)
    with pytest.raises(AskedError) as asked:
        load_tasks(names, [str(shipped("tasks")), str(own)])
    assert asked.value.args == (defaults,)


def test_a_test_split_is_looked_for_among_the_harnesss_own_tasks_last(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def installed() -> TaskIndex:
        asked.append("installed")
        return TaskIndex({"xnli_hi": (), "arc_easy": ()})

    monkeypatch.setattr("lm_eval_clas.harness.task_loading.installed", installed)
    assert other_splits(["own_tune_hi", "own_hi", "clas_xnli_tune_hi"], [str(own)]) == ["own_hi", "own_hi", "clas_xnli_hi"]
    assert not asked
    assert other_splits(["xnli_tune_hi", "no_tune_hi", "arc_easy_tune"], [str(own)]) == ["xnli_hi", "no_tune_hi", "arc_easy"]


CHANCE = """
import random
import numpy

DRAWN = []

def shuffled(docs):
    DRAWN.append((random.random(), numpy.random.random()))
    return docs
"""


def test_chance_is_as_where_lm_eval_loads_tasks_and_afterwards_as_before(tmp_path: Path) -> None:
    """Some tasks shuffle their choices with `random` when they are loaded, and several processes must do it alike."""
    defaults = {name: one.default for name, one in inspect.signature(simple_evaluate).parameters.items()}
    (data := tmp_path / "docs.jsonl").write_text('{"q": "a"}\n')
    (tmp_path / "chance.py").write_text(CHANCE)
    (tmp_path / "shuffled.yaml").write_text(
        "task: shuffled_hi\ndataset_path: json\noutput_type: generate_until\ntest_split: test\ndoc_to_text: q\n"
        f"doc_to_target: q\nprocess_docs: !function chance.shuffled\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
    )
    expected = (
        random.Random(defaults["random_seed"]).random(),
        np.random.RandomState(defaults["numpy_random_seed"]).random_sample(),
    )
    for other in (7, 8):
        random.seed(other)
        np.random.seed(other)
        task = load_tasks(["shuffled_hi"], [str(tmp_path)])["shuffled_hi"]
        drawn = task.config.process_docs.__globals__["DRAWN"]
        assert drawn[0] == expected
        drawn.clear()
        assert random.random() == random.Random(other).random()
        assert np.random.random() == np.random.RandomState(other).random_sample()
