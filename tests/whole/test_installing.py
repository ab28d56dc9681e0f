"""The wheel in environments of its own: what it holds, and where the hook that `site` executes is, and is not."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipapp
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
HOOK = "lm_eval_clas_hook.pth"
HOOKED = "import sys; print(any(getattr(finder, '__name__', '') == 'LmEvalClasHook' for finder in sys.meta_path))"
KNOWN = "import lm_eval.models; from lm_eval.api.registry import model_registry; print('hf-clas' in model_registry)"

EVAL = """
import sys
from lm_eval._cli import HarnessCLI
from lm_eval_clas.commands.cli import main
HarnessCLI.execute = lambda *_: None
sys.argv = ["clas", "eval", "--model", "hf-clas", "--tasks", "clas_mini"]
try:
    main()
except SystemExit:
    pass
"""


def ran(*command: object, **environment: str) -> str:
    """What a program prints outside the checkout; it must succeed and say nothing on standard error."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("COV")}
    words, whole = list(map(str, command)), kept | environment
    done = subprocess.run(words, cwd=sys.prefix, env=whole, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'lm-eval-clas[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@dataclass
class Fresh:
    """An environment that has nothing of ours, and sees the libraries of the one that runs the tests."""

    folder: Path

    def __post_init__(self) -> None:
        venv.create(self.folder, with_pip=False)
        (self.site / "libraries.pth").write_text(sysconfig.get_path("purelib"))

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def pip(self, *words: object) -> str:
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        return ran(sys.executable, "-m", "pip", "--python", self.python, *quiet, *words, PIP_ROOT_USER_ACTION="ignore")


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    return Fresh(tmp_path / "environment")


@pytest.fixture
def target(fresh: Fresh, wheel: Path, tmp_path: Path) -> Path:
    """A folder that `pip install --target` filled."""
    fresh.pip("install", "--no-deps", "--no-index", "--target", tmp_path / "target", wheel)
    return tmp_path / "target"


def files_of(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_its_tasks_and_its_masks(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {f"lm_eval_clas/{name}" for name in files_of(ROOT / "lm_eval_clas") if Path(name).name != HOOK}
    beside = {f"lm_eval_clas/data/{folder}/{name}" for folder in ("tasks", "masks") for name in files_of(ROOT / folder)}
    assert names == package | beside | {HOOK}


def test_uninstalling_removes_all_that_installing_brought(fresh: Fresh, wheel: Path) -> None:
    before = files_of(fresh.site)
    fresh.pip("install", "--no-deps", "--no-index", wheel)
    assert (fresh.site / HOOK).read_text() == (ROOT / "lm_eval_clas" / "harness" / HOOK).read_text()
    assert ran(fresh.python, "-c", HOOKED) == "True"
    assert ran(fresh.python, "-c", KNOWN) == "True"
    assert ran(fresh.python, "-m", "lm_eval_clas", "tasks") == str(fresh.site / "lm_eval_clas" / "data" / "tasks")
    fresh.pip("uninstall", "--yes", "lm-eval-clas")
    assert files_of(fresh.site) == before
    assert ran(fresh.python, "-c", HOOKED) == "False"


def test_without_site_there_is_no_hook(fresh: Fresh, wheel: Path) -> None:
    fresh.pip("install", "--no-deps", "--no-index", wheel)
    assert ran(fresh.python, "-S", "-c", HOOKED) == "False"
    assert ran(fresh.python, "-S", "-c", HOOKED, PYTHONPATH=str(fresh.site)) == "False"


def test_in_a_target_folder_the_hook_is_a_file_that_nobody_executes(fresh: Fresh, target: Path) -> None:
    assert (target / HOOK).is_file()
    path = {"PYTHONPATH": str(target)}
    assert ran(fresh.python, "-c", HOOKED, **path) == "False"
    assert ran(fresh.python, "-c", KNOWN, **path) == "False"
    assert ran(fresh.python, "-m", "lm_eval_clas", "tasks", **path) == str(target / "lm_eval_clas" / "data" / "tasks")
    # What the documentation says to do about it.
    assert ran(fresh.python, "-c", f"from lm_eval_clas import CLASLM; {KNOWN}", **path) == "True"
    assert ran(fresh.python, "-c", f"{EVAL}{KNOWN}", **path) == "True"
    assert ran(fresh.python, "-c", f"import site; site.addsitedir({str(target)!r}); {HOOKED}") == "True"


def test_in_a_zipapp_the_hook_is_not_executed_and_what_ships_is_not_found(fresh: Fresh, target: Path, tmp_path: Path) -> None:
    archive = tmp_path / "clas.pyz"
    zipapp.create_archive(target, archive, main="lm_eval_clas.commands.cli:main")
    assert ran(fresh.python, "-c", HOOKED, PYTHONPATH=str(archive)) == "False"
    assert "inspect" in ran(fresh.python, archive, "--help")
    done = subprocess.run([fresh.python, archive, "tasks"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The folder 'tasks' that ships with lm-eval-clas is missing" in " ".join(done.stderr.split())
