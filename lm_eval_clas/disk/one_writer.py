"""One writer of a folder at a time, also among machines that share a disk: others wait a little, and are refused then.

The lock is that of the operating system (`flock`) on a hidden file of the folder, so that it ends with its process, however
that ends, and nobody has to tidy up after a kill; network disks carry it from machine to machine. The file says who holds it,
and is deleted by its holder.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.disk.checked_files import read_text

LOCK = ".clas_lock"
_PATIENCE = 10.0  # seconds; no table, picture or mask folder takes as long to be written
_LONGEST = 200  # characters of what a lock says


@contextmanager
def only_writer(folder: Path, patience: float | None = None) -> Iterator[None]:
    """Keeps other processes off a folder for the length of the block; it is made if it is not there.

    Where no file can be made, or the system has no locks (some network disks), it goes on without.

    Args:
        folder: absolute.
        patience: seconds to wait for another writer.

    Raises:
        ClasError: another process writes to it, and does not end soon.
    """
    held = _held(folder / LOCK, _PATIENCE if patience is None else patience)
    try:
        yield
    finally:
        if held is not None:
            with suppress(OSError):  # while it is still held: who comes later makes another file
                (folder / LOCK).unlink()
            held.release()


def _held(path: Path, patience: float) -> FileLock | None:
    """The lock, held; None where there can be none."""
    end = time.monotonic() + patience
    while True:
        lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a killed process
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=max(0.0, end - time.monotonic()), poll_interval=0.1)
        except Timeout as error:
            raise ClasError(
                f"Another process writes to '{path.parent}'{_holder(path)}; wait until it has ended, or give another place for "
                "the output."
            ) from error
        except FileNotFoundError:  # whoever held it has deleted its folder just now
            if time.monotonic() < end:
                continue
            return None
        except (OSError, NotImplementedError):
            return None
        try:
            with path.open("r+", encoding="utf-8") as file:
                file.write(visible(f"process {os.getpid()} on {socket.gethostname()}"))
                file.truncate()
        except FileNotFoundError:  # it was deleted between being opened and being locked, so it keeps nobody off
            lock.release()
            continue
        except OSError:
            pass  # it holds, whatever it says
        return lock


def _holder(path: Path) -> str:
    """What is known of who holds a lock."""
    try:
        told = read_text(path).strip()
    except (OSError, ValueError):
        return ""
    return f" ({told[:_LONGEST]})" if told else ""
