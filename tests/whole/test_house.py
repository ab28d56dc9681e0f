"""The house stays in order: small folders and modules, names that can be told apart, imports that run one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from naming import alike, same

import lm_eval_clas

PACKAGE = Path(lm_eval_clas.__file__).parent
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))


def named(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def test_at_the_top_are_folders_and_the_two_ways_in() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_a_folder_has_twelve_modules_at_most(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 12


def test_no_module_has_more_than_400_lines() -> None:
    assert not [named(path) for path in PACKAGE.rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 400]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != PACKAGE], ids=named)
def test_a_folder_says_what_it_is_for_and_imports_nothing(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    told = ast.get_docstring(tree) or ""
    assert "Begin with" in told
    assert "mport" in told
    for name in re.findall(r"`(\w+\.py)`", told):
        assert (folder / name).is_file(), name
    for name in re.findall(r"`([a-z]+)`", told.partition("\n\n")[2]):
        assert (PACKAGE / name).is_dir(), name


def test_names_can_be_told_apart() -> None:
    assert not same(PACKAGE)
    assert not alike(PACKAGE)


# What stands in one folder alone: how pictures look and are saved; tests, intervals and resampling.
HOMES = {
    "drawing": r"[\"']#[0-9a-f]{6}[\"']|savefig|pyplot|figsize|fontsize=\d|labelsize=\d|rc_context",
    "evidence": r"scipy\.stats|np\.(nan)?(quantile|percentile)\(|multinomial\(|cohen_kappa",
}


@pytest.mark.parametrize("home", HOMES)
def test_one_home_for_drawing_and_one_for_is_it_real(home: str) -> None:
    found = {path for path in PACKAGE.rglob("*.py") if re.search(HOMES[home], path.read_text(encoding="utf-8"))}
    assert found
    assert {path.relative_to(PACKAGE).parts[0] for path in found} == {home}, sorted(map(named, found))


def test_no_module_imports_the_whole_package() -> None:
    """Its `__init__` names all the public ones: whoever imports that, imports in a circle."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "lm_eval_clas", named(path)
                assert node.level == 0, named(path)
            elif isinstance(node, ast.Import):
                assert "lm_eval_clas" not in [one.name for one in node.names], named(path)


def _names_of(module: Path) -> set[str]:
    """What a module has at its top level."""
    found: set[str] = set()
    for statement in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found.add(statement.name)
            continue
        for node in ast.walk(statement):  # also what stands below `if` and `try`
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {one.asname or one.name for one in node.names}
    return found


SCRIPTS = sorted(path for folder in ("benchmarks", "docs/mkdocs", ".ci") for path in (PACKAGE.parent / folder).rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_scripts_that_no_test_runs_import_what_is_there(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lm_eval_clas":
            place = PACKAGE.parent / (node.module or "").replace(".", "/")
            module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            missing = {one.name for one in node.names} - _names_of(module)
            assert not [name for name in missing if not (place / f"{name}.py").is_file()], (node.module, missing)


def test_imports_run_one_way() -> None:
    """What `lint-imports` says, where it is installed (extra `dev`); the contracts are in pyproject.toml."""
    pytest.importorskip("importlinter", reason="import-linter comes with the extra dev")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
