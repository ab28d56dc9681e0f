"""JSON files that may come from anywhere: looked at before they are read, and with nothing in them that cannot be shown."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

_LARGEST = 100_000_000  # bytes; a mask folder's configuration with hundreds of tuned strengths has some hundred thousand


def read_json(path: Path) -> Any:
    """The content of a file whose texts can all be printed on one line.

    Others would break error messages and tables, or move the cursor of the terminal that shows them.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or cannot be read; the message says why.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise ValueError("it is no ordinary file")
        if status.st_size > _LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_bytes())
        _require_printable(content)
    except FileNotFoundError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON from line {error.lineno} on") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def _require_printable(value: Any) -> None:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("it has a text that cannot be printed")
    if isinstance(value, dict):
        for key, part in value.items():
            _require_printable(key)
            _require_printable(part)
    if isinstance(value, list):
        for part in value:
            _require_printable(part)
