"""Without vLLM, nothing but a request for it notices."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import PACKAGE
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.tuning.chosen_engine import engine_in_use

# In the place of vLLM, where it is installed: a finder that says that there is none.
HIDDEN = """
import importlib.util, sys
original = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "vllm" else original(name, package)
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip


def test_one_sentence_says_how_to_install_it(tmp_path: Path) -> None:
    code = f"""{HIDDEN if importlib.util.find_spec("vllm") else ""}
import lm_eval.models
from lm_eval_clas.harness.plugin import register
register()
from lm_eval.api.registry import get_model
get_model("vllm-clas")
"""
    result = python(code, tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "lm_eval_clas.base.errors.ClasError: vllm-clas needs vLLM, which is not installed: pip install 'lm-eval-clas[vllm]' "
        "on a machine with CUDA, or see docs/vllm.md for one without."
    )


def test_the_package_does_not_import_it(tmp_path: Path) -> None:
    code = "import sys, lm_eval_clas, lm_eval_clas.commands.cli; sys.exit('vllm' in sys.modules)"
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_study_says_so_before_its_first_stage(small_study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**small_study, "model": "none", "engine": "vllm"}), encoding="utf-8")
    code = f"""{HIDDEN if importlib.util.find_spec("vllm") else ""}
import sys
from lm_eval_clas.commands.cli import main
sys.argv = ["clas", "paper", "recipe.yaml", "--out", "study"]
main()
"""
    result = python(code, tmp_path)
    assert result.returncode == 2
    assert "vllm-clas needs vLLM, which is not installed" in " ".join(result.stderr.split())
    assert not (tmp_path / "study" / "profile").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 0.1, "method": "incline"}, "run 'other' has method incline, which adds a linear map of the activation"),
        ({"alpha": 1, "scoring": "stock"}, "run 'other' has scoring, which is of hf-clas alone"),
    ],
)
def test_a_study_refuses_runs_that_vllm_does_not_have(
    options: dict[str, Any], sentence: str, small_study: dict[str, Any], tmp_path: Path
) -> None:
    runs = {**small_study["evaluate"]["runs"], "other": options}
    recipe = {**small_study, "model": "none", "evaluate": {**small_study["evaluate"], "runs": runs}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    StudyRecipe.load(path)
    path.write_text(yaml.safe_dump({**recipe, "engine": "vllm"}), encoding="utf-8")
    with pytest.raises(ClasError, match=sentence):
        StudyRecipe.load(path)


@pytest.mark.parametrize("method", ["int-mu", "arithmetic", "diffmean", "random-direction"])
def test_a_study_has_the_methods_that_add_in_vllm(method: str, small_study: dict[str, Any], tmp_path: Path) -> None:
    runs = {**small_study["evaluate"]["runs"], "other": {"alpha": 0.5, "method": method}}
    recipe = {**small_study, "model": "none", "engine": "vllm", "evaluate": {**small_study["evaluate"], "runs": runs}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert StudyRecipe.load(path).evaluate.runs["other"]["method"] == method


def test_tuning_in_vllm_refuses_a_launcher_before_anything_is_loaded(masks: MaskSet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ClasError, match="start this without a launcher, and give tensor_parallel_size"):
        engine_in_use("vllm", "none", "", masks, [], None, "auto")
