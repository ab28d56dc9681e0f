"""`f1_lang` in the `metric_list` of a task of one's own, as versions of the harness with plug-ins for metrics find it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import PACKAGE
from lm_eval_clas.harness.common.metric_plugin import f1_of_answers
from lm_eval_clas.texts.metrics import f1_lang

VALUE = "lm_eval_clas.harness.common.metric_plugin:f1_of_answers"
CODE = f"""
from importlib.metadata import EntryPoint
from lm_eval.api.registry import metric_registry
metric_registry.register("f1_lang", target=EntryPoint(name="f1_lang", value="{VALUE}", group="lm_eval.metrics"))
from lm_eval.tasks import TaskManager
task = TaskManager(include_path=".", include_defaults=False).load(["own_th"])["tasks"]["own_th"]
doc = next(iter(task.eval_docs))
print(task.process_results(doc, ["แมวสีดำ"])["f1_lang"], task.higher_is_better(), task.aggregation()["f1_lang"]([0, 1]))
"""


def test_a_task_of_ones_own_is_scored_by_it(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"question": "?", "answer": "แมวดำ"}))
    task = {
        "task": "own_th", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "f1_lang", "language": "th"}],
    }  # fmt: skip
    (tmp_path / "own_th.yaml").write_text(json.dumps(task))
    result = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    score = f1_lang("แมวสีดำ", ["แมวดำ"], "th")
    assert 0 < score < 1
    assert result.stdout.split("\n")[-2] == f"{score} {{'f1_lang': True}} 0.5"


def test_the_package_says_where_it_is() -> None:
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'[project.entry-points."lm_eval.metrics"]\nf1_lang = "{VALUE}"\n' in project


@pytest.mark.parametrize(
    ("language", "told"), [(None, "needs a language; write 'language: hi'"), ("Hindy", "did you mean 'Hindi'")]
)
def test_a_language_that_is_none_is_told(language: str | None, told: str) -> None:
    with pytest.raises(ClasError, match=told):
        f1_of_answers(["a"], ["a"], language)
