"""Programs in a terminal of some width, and what their user sees in the end."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


def in_terminal(command: Sequence[str], columns: int = 80, folder: Path | None = None) -> tuple[int, str]:
    """Runs a program in a terminal; its exit code, and all that it wrote there, with what moves the cursor."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    environment |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # how a terminal tells that nobody writes to it any more
        pass
    os.close(ours)
    return process.wait(), written.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """A text without colours and whatever else is not printed."""
    return _CONTROL.sub("", text)


def moves_up(text: str) -> bool:
    """Whether the cursor ever goes up a line, which notebooks and many logs do not do."""
    return any(found[2] in "AFH" for found in _CONTROL.finditer(text))


def python(code: str) -> list[str]:
    """The command that runs some Python."""
    return [sys.executable, "-c", code]
