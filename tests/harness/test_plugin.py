"""A stock `lm_eval` learns the name `hf-clas`, and nothing else notices the hook."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lm_eval_clas.disk.files import PACKAGE

HOOK = (PACKAGE / "harness" / "lm_eval_clas_hook.pth").read_text()


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path[1:]]), **environment},
    )  # fmt: skip


def test_the_hook_is_one_line_that_site_executes() -> None:
    assert HOOK.count("\n") == 1
    assert HOOK.startswith("import ")


def test_the_hook_imports_nothing(tmp_path: Path) -> None:
    code = f"""
import os, sys
before = set(sys.modules)
exec({HOOK!r})
assert set(sys.modules) == before
assert sys.meta_path[0].find_spec("json") is None
assert set(sys.modules) == before
"""
    result = python(code, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


# What the harness has with the hook, with a call by hand, and where an entry point came first, as in versions of the harness
# that read the entry-point group: they register the same target themselves, which is left as it is.
WITH_THE_HARNESS = {
    "the hook registers the lazy name": f"""
import sys
exec({HOOK!r})
import lm_eval.models
from lm_eval.api.registry import get_model, model_registry
assert "lm_eval_clas.harness.hf_clas" not in sys.modules
assert get_model("hf-clas").__name__ == "CLASLM"
assert get_model("hf").__name__ == "HFLM"
""",
    "a call by hand leaves the harness its own models": """
from lm_eval_clas.harness.plugin import register
register()
from lm_eval.api.registry import get_model
assert get_model("hf").__name__ == "HFLM"
assert get_model("hf-clas").__name__ == "CLASLM"
""",
    "an entry point that came first is left as it is": f"""
exec({HOOK!r})
from importlib.metadata import EntryPoint
from lm_eval.api.registry import model_registry
point = EntryPoint(name="hf-clas", value="lm_eval_clas.harness.hf_clas:CLASLM", group="lm_eval.models")
model_registry.register("hf-clas", target=point)
import lm_eval.models
assert model_registry.get("hf-clas").__name__ == "CLASLM"
""",
}
# Runs each in a process forked from one that has loaded what takes seconds, but neither the harness nor anything of ours.
LIBRARIES = (
    "datasets", "sacrebleu", "sklearn.metrics", "torch._dynamo", "torch.distributed.tensor",
    "transformers.models.auto.modeling_auto",
)  # fmt: skip
FORKS = """
import os, sys, traceback
import LIBRARIES
for code in CODES:
    assert not [name for name in sys.modules if name.startswith("lm_eval")]
    child = os.fork()
    if not child:
        try:
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_names_are_registered_with_the_harness(tmp_path: Path) -> None:
    code = FORKS.replace("CODES", repr(list(WITH_THE_HARNESS.values()))).replace("LIBRARIES", ", ".join(LIBRARIES))
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    found = dict(zip(WITH_THE_HARNESS, result.stdout.split(), strict=True))
    assert found == dict.fromkeys(WITH_THE_HARNESS, "0"), result.stderr


def test_the_hook_can_be_turned_off(tmp_path: Path) -> None:
    code = f"import sys; before = list(sys.meta_path); exec({HOOK!r}); assert sys.meta_path == before"
    assert python(code, tmp_path, LM_EVAL_CLAS_NO_HOOK="1").returncode == 0


def test_the_hook_never_fails(tmp_path: Path) -> None:
    """Not without the package, not with a broken one, and not with a harness of another shape."""
    without = tmp_path / "without" / "lm_eval"
    (without / "models").mkdir(parents=True)
    (without / "__init__.py").touch()
    (without / "models" / "__init__.py").write_text("here = 1")
    result = python(f"exec({HOOK!r}); import lm_eval.models as m; print(m.here)", tmp_path, PYTHONPATH=str(without.parent))
    assert (result.stdout, result.stderr) == ("1\n", "")
    broken = tmp_path / "without" / "lm_eval_clas"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError")
    result = python(f"exec({HOOK!r}); import lm_eval.models as m; print(m.here)", tmp_path, PYTHONPATH=str(broken.parent))
    assert (result.stdout, result.stderr) == ("1\n", "")
    other = tmp_path / "other"
    shutil.copytree(without, other / "lm_eval")
    code = f"import sys; sys.path.insert(0, {str(other)!r}); exec({HOOK!r}); import lm_eval.models as m; print(m.here)"
    result = python(code, tmp_path)
    assert result.stdout == "1\n"
    assert "could not register" in result.stderr
