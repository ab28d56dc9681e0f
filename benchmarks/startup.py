"""What the package costs those who do not use it: `lm_eval --help` with and without it. Target: no difference.

Two virtual environments hold links to everything in this one's site-packages; the second lacks what the installed package
brought (its start-up hook, its metadata with the entry point, the package itself). So both process the same other files
when Python starts, and they differ as before and after `pip install`. Each run is a new process.

    python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sysconfig
import tempfile
import venv
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

from measuring import alternate, print_table

KNOWS_HF_CLAS = "import lm_eval.models; from lm_eval.api.registry import model_registry; print('hf-clas' in model_registry)"


def our_entries() -> set[str]:
    """The names in site-packages that the installed package brought."""
    return {file.parts[0] for file in distribution("lm-eval-clas").files or () if file.parts[0] != ".."}


def make_environment(folder: Path, leave_out: set[str]) -> Path:
    """A virtual environment like this one, but for some names in site-packages; returns its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in leave_out:
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def run(python: Path, *arguments: str) -> str:
    # Elsewhere, because `python -m` and `python -c` also look for modules in the working directory.
    switches = {"PYTHONPATH", "LM_EVAL_CLAS_NO_HOOK"}
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    command = [str(python), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=python.parent, env=environment).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        without = make_environment(Path(scratch) / "without", our_entries())
        installed = make_environment(Path(scratch) / "installed", set())
        for python, expected in ((without, "False"), (installed, "True")):
            if run(python, "-c", KNOWS_HF_CLAS).strip() != expected:
                raise SystemExit(f"{python}: expected 'hf-clas' to be known to lm_eval: {expected}.")
        sides = {
            "without": partial(run, without, "-m", "lm_eval", "--help"),
            "installed": partial(run, installed, "-m", "lm_eval", "--help"),
        }
        measured = alternate(sides, arguments.rounds)
    print_table("lm_eval --help", measured, [("installed", "without")])


if __name__ == "__main__":
    main()
