"""The command line itself: its version, the order of its commands, completion in three shells, and the help of `clas eval`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from small_models import Run

from lm_eval_clas import __version__
from lm_eval_clas.commands.cli import ORDER


def test_the_version(clas: Run) -> None:
    assert clas("--version") == (0, f"clas {__version__}\n", "")


def test_help_has_the_commands_in_the_order_of_the_work(clas: Run) -> None:
    code, text, _ = clas("--help")
    assert code == 0
    assert "Usage: clas " in text
    listed = [line.strip("│ ").split()[0] for line in text.split("Commands")[1].splitlines() if line.strip("│ ")]
    assert [name for name in listed if name in ORDER] == list(ORDER)
    main_job = ["profile", "masks", "inspect", "tune", "eval", "table", "paper", "report"]
    assert [name for name in ORDER if name in main_job] == main_job


def complete(shell: str, *words: str) -> str:
    """What a shell is given for the last of several words, as its completion script asks."""
    line = " ".join(("clas", *words))
    asked = {
        "_CLAS_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "lm_eval_clas"]
    return subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    commands = complete(shell, "pro")
    assert "profile" in commands
    assert "paper" not in commands
    assert "--first-token" in complete(shell, "profile", "--fi")
    choices = complete(shell, "profile", "--site", "a")
    assert "attn" in choices
    assert "mlp" not in choices


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str) -> None:
    command = [sys.executable, "-m", "lm_eval_clas"]
    environment = os.environ | {"_CLAS_COMPLETE": f"source_{shell}"}
    script = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"_CLAS_COMPLETE=complete_{shell}" in script
    if shell == "bash" and (bash := shutil.which("bash")):
        lines = f'{script}\nclas() {{ "{sys.executable}" -m lm_eval_clas "$@"; }}\nexport -f clas\n'
        # env, which the script calls clas with, starts programs alone.
        lines = lines.replace("complete_bash $1", f"complete_bash {sys.executable} -m lm_eval_clas")
        lines += 'COMP_WORDS=(clas insp); COMP_CWORD=1; _clas_completion clas; echo "${COMPREPLY[@]}"'
        done = subprocess.run([bash, "-c", lines], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "inspect"


def test_the_help_of_eval_speaks_of_clas_eval(clas: Run) -> None:
    code, text, _ = clas("eval", "--help")
    assert code == 0
    assert text.startswith("usage: clas eval --model")
    assert "lm-eval run" not in text
    assert "$ clas eval --model hf" in text
    code, _, error = clas("eval", "--model", "hf", "--nonsense")
    assert code == 2
    assert error.splitlines()[-1] == "clas eval: error: unrecognized arguments: --nonsense"


@pytest.mark.parametrize("name", ORDER)
def test_every_command_can_be_quiet(clas: Run, name: str) -> None:
    code, text, _ = clas(name, "--help")
    assert code == 0
    assert "--quiet" in text
