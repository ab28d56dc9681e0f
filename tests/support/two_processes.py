"""`clas` in two processes that work together, told of each other as a launcher tells its own, but started without one.

A launcher and its processes would import all libraries, each of them; these are forked from a server that has.
"""

from __future__ import annotations

import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from killing import start

DEADLOCKED = 400  # seconds; processes that start beside other work take long


def told(rank: int, port: int) -> dict[str, str]:
    """What `accelerate launch --num_processes 2` puts into a process's environment, as far as anything here reads it."""
    one = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**one, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def start_two(folder: Path, *words: object) -> list[BaseProcess]:
    """Starts `clas` with these words in a folder, twice; what both say is in `out.txt` and `err.txt` beside it."""
    for name in ("out.txt", "err.txt"):
        (folder.parent / name).write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"CUDA_VISIBLE_DEVICES": ""}  # ours take the CPU of themselves where there are no GPUs
    return [start(folder, *words, streams=("out.txt", "err.txt"), environment=told(rank, port) | given) for rank in range(2)]


def run_two(folder: Path, *words: object, expect: int = 0) -> tuple[str, str]:
    """Runs `clas` in two processes to their end, and returns what both print; fails if they wait for each other."""
    processes = start_two(folder, *words)
    deadline = time.monotonic() + DEADLOCKED
    while (working := [one for one in processes if one.is_alive()]) and time.monotonic() < deadline:
        if any(one.exitcode not in (None, expect) for one in processes):
            break  # as a launcher does, which then ends the others
        working[0].join(0.1)
    ended = [process.exitcode for process in processes]
    kill_all(processes)
    out, errors = ((folder.parent / name).read_text() for name in ("out.txt", "err.txt"))
    if time.monotonic() >= deadline:
        pytest.fail(f"deadlock: {words} has not ended after {DEADLOCKED} s\n{errors[-3000:]}")
    assert ended == [expect] * 2, errors[-5000:]
    return out, errors


def kill_all(processes: list[BaseProcess]) -> None:
    """Kills what has not ended."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
