"""`clas demo` in all its languages, on a small model in the place of the real one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from small_models import Run

from lm_eval_clas import MaskSet


@pytest.mark.slow
def test_it_runs_from_end_to_end_and_goes_on_where_it_was(
    clas: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "cache" / "gemma-3-270m")
    monkeypatch.setenv("LM_EVAL_CLAS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    demo = ("demo", "--out", out, "--alpha", -1.0, "--limit", 1)
    code, text, error = clas(*demo)
    assert code == 0, error
    languages = MaskSet.load(out / "masks").languages
    assert len(languages) == 16
    for language in languages:
        assert re.search(rf"^\W*{language}\b", text, re.MULTILINE)
    assert "Written to" in text + error
    assert (out / "categories.png").read_bytes().startswith(b"\x89PNG")
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in ("hf", "hf-clas")}
    assert len(found["hf"]["results"]) == len(found["hf-clas"]["results"]) == 2 * len(languages)
    assert found["hf-clas"]["config"]["clas"]["left_alone"] == {"en": "anchor"}
    kept = (out / "hf.json", out / "hf-clas.json", *(out / "profile").glob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert (again := clas(*demo))[0] == 0, again[2]
    assert (again[1] + again[2]).count("finished before") == 2
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert text.splitlines()[:5] == again[1].splitlines()[:5]  # the same table
