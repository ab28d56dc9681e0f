"""What the package says that `vllm-clas` does with families is what it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_engines import MISSING

from lm_eval_clas.engine.refusals import KNOWN_VERSIONS
from lm_eval_clas.families.tried_in_vllm import WORKS, tried_in_vllm

pytest.importorskip("vllm", reason=MISSING)

SCRIPT = Path(__file__).parents[2] / "docs" / "mkdocs" / "tried_in_vllm.py"
# Of vLLM's own code, of transformers', and refused.
FAMILIES = ("llama", "biogpt", "mixtral")


def test_families_are_as_the_package_says(tmp_path: Path) -> None:
    told, out = tried_in_vllm(), tmp_path / "out.json"
    done = subprocess.run([sys.executable, SCRIPT, "--out", out, *FAMILIES], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["vllm"] == told.vllm == KNOWN_VERSIONS
    assert found["cells"] == {family: told.cells[family] for family in FAMILIES}
    assert told.cells["llama"] == WORKS
