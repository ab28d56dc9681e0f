"""Without vLLM, nothing but a request for it notices."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from lm_eval_clas.disk.files import PACKAGE

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
