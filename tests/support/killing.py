"""`clas` in processes of their own that start at once, and can be killed: forked from a server that has loaded everything.

Otherwise most of the time, and most of the moments to be killed at, would go to importing libraries.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partialmethod
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

import machine_asked_once  # noqa: F401  (before the harness)
import pytest
import torch
from lm_eval.tasks import TaskManager
from sketching import sketch
from torch.utils import collect_env

from lm_eval_clas.commands.cli import main
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.drawing.figures import new_figure
from lm_eval_clas.harness import hf_clas  # noqa: F401  (loaded before a fork)
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.languages.sibling_names import installed_siblings

MOMENT = "1767225600"  # 2026-01-01; what files are dated to
Command = Sequence[object]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])
_SERVER = "CLAS_TESTS_SERVER"
if _SERVER in os.environ:  # what takes seconds: the index of our tasks, all names, pip's list, what is imported late
    # The index of the harness's own tasks, of which no test needs any here, would take as long as all else.
    TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False)
    load_tasks(["clas_mini_nli_hi"], [str(shipped("tasks"))])
    installed_siblings()
    new_figure(1, 1)
    collect_env.get_pretty_env_info()
    for late in ("lm_eval.evaluator", "peft", "sklearn.metrics", "transformers.models.llama.modeling_llama"):
        importlib.import_module(late)
    gc.collect()
    gc.freeze()  # the collector, which the harness calls often, need not look through all of this in every process


def start(
    folder: Path,
    *words: object,
    streams: tuple[str, str] = ("log", "log"),
    environment: Mapping[str, str] | None = None,
    drawn: bool = False,
) -> BaseProcess:
    """Starts `clas` with these words in a folder; what it says is in two files beside the folder, or in one.

    Pictures are dots, unless they are to be `drawn`.
    """
    folder.mkdir(exist_ok=True)
    given = (folder, [str(word) for word in words], streams, dict(environment or {}), drawn)
    process = _context.Process(target=_clas, args=given)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # The first start also starts the server. Commands turn off tqdm before they import anything that would.
    with mock.patch.dict(os.environ, {_SERVER: "1", "TQDM_DISABLE": "1", "PYTHONPATH": path}):
        process.start()
    return process


def _clas(folder: Path, words: list[str], streams: tuple[str, str], environment: dict[str, str], drawn: bool) -> None:
    os.chdir(folder)
    if not drawn:
        sketch(pytest.MonkeyPatch())
    os.environ |= {"SOURCE_DATE_EPOCH": MOMENT, **environment}
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts something in the background ignores Ctrl-C
    for stream, name in zip((sys.stdout, sys.stderr), streams, strict=True):
        os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    sys.argv = ["clas", *words]
    main()


def run(folder: Path, *words: object, drawn: bool = False) -> float:
    """Runs `clas` to its end, and returns the seconds it took."""
    began = time.monotonic()
    process = start(folder, *words, drawn=drawn)
    process.join(300)
    assert process.exitcode == 0, (words, (folder.parent / "log").read_text()[-3000:])
    return time.monotonic() - began


def printed(folder: Path, *words: object) -> tuple[str, str]:
    """Runs `clas` to its end, and returns what it prints into files: standard output and standard error."""
    streams = [folder.parent / name for name in ("out.txt", "err.txt")]
    for path in streams:
        path.write_text("")
    process = start(folder, *words, streams=("out.txt", "err.txt"))
    process.join(300)
    out, err = (path.read_text() for path in streams)
    assert process.exitcode == 0, (words, err[-3000:])
    return out, err


def contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too, and empty folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def differing(one: Path, other: Path) -> list[str]:
    """The names of files that are not the same in two folders."""
    a, b = contents(one), contents(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def killed_again_and_again(given: Path, command: Command, kills: int, seed: int) -> list[float]:
    """Kills a command at random moments, starts it again, and compares what it ends with with an undisturbed run.

    A run that ends before it is to be killed is compared, and begun afresh.

    Args:
        given: a folder with what the command reads; runs happen in copies beside it.
        command: the words after `clas`; paths in it are relative.
        kills: how many must hit it.
        seed: of the moments.

    Returns:
        The moments of the kills, in seconds from the start of a process.
    """
    chance = random.Random(seed)
    undisturbed, killed = given.with_name("undisturbed"), given.with_name("killed")
    shutil.copytree(given, undisturbed)
    run(undisturbed, *command)  # fills the caches of libraries
    shutil.rmtree(undisturbed)
    shutil.copytree(given, undisturbed)
    whole = run(undisturbed, *command)
    moments: list[float] = []
    shutil.copytree(given, killed)
    while len(moments) < kills:
        moment = chance.uniform(0, whole)
        process = start(killed, *command)
        process.join(moment)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            moments.append(moment)
            continue
        assert process.exitcode == 0, (command, (given.parent / "log").read_text()[-3000:])
        assert not (different := differing(killed, undisturbed)), different
        shutil.rmtree(killed)
        shutil.copytree(given, killed)
    run(killed, *command)
    assert not (different := differing(killed, undisturbed)), different
    return moments
