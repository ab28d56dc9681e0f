"""Which tasks the harness looks for: its own ten thousand files are read only where a name needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
