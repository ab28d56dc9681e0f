"""Random edits of mask folders and profiles, such as a bad disk, a careless editor or an attacker makes."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from lm_eval_clas.disk.files import sha256

CANARY = "was-run"  # the file that every injected piece of code would make

NAMES = [
    "../../../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:\\x", "file:///etc/passwd", "~root", "-rf", "con",
    "\x00", "a\x00b", "\n", "\x1b[2J", "\ud800", "\u202e", "é" * 300, "x" * 100_000, "[bold]", "[/]", "{{ 7 * 7 }}", "%s%n",
    "{% raw %}", f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY}", f"__import__('os').system('touch {CANARY}')",
    f"!!python/object/apply:os.system ['touch {CANARY}']", "<script>", "---\nx", "hi", "en", "und", "masks.safetensors",
]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e38, 1e39,
    1e308, float("inf"), float("-inf"), float("nan"), True, "1", "1e999",
]  # fmt: skip
VALUES = [None, [], {}, [[]], [None], {"a": 1}, "", False]


def deep(value: Any = 0, levels: int = 3_000) -> str:
    """JSON with many levels of lists, as text: no writer of JSON would make it."""
    return "[" * levels + json.dumps(value) + "]" * levels


# Edits of the configuration's content


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a JSON value."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    for key in keys:
        yield content, key
        yield from places(content[key])


def change_value(content: Any, chance: random.Random) -> None:
    container, key = chance.choice(list(places(content)))
    container[key] = chance.choice([*NUMBERS, *NUMBERS, *NAMES, *VALUES])


def change_number(content: Any, chance: random.Random) -> None:
    numbers = [(c, k) for c, k in places(content) if isinstance(c[k], int | float)]
    container, key = chance.choice(numbers)
    old = container[key]
    container[key] = chance.choice([*NUMBERS, old + 1, old - 1, old * 10])


def change_text(content: Any, chance: random.Random) -> None:
    texts = [(c, k) for c, k in places(content) if isinstance(c[k], str)]
    container, key = chance.choice(texts)
    container[key] = chance.choice(NAMES)


def change_key(content: Any, chance: random.Random) -> None:
    container, key = chance.choice([(c, k) for c, k in places(content) if isinstance(c, dict)])
    container[chance.choice([*NAMES, key.upper()])] = container.pop(key)


def lose(content: Any, chance: random.Random) -> None:
    container, key = chance.choice(list(places(content)))
    del container[key]


def swap(content: Any, chance: random.Random) -> None:
    (one, a), (other, b) = (chance.choice(list(places(content))) for _ in range(2))
    # A container moved into itself would make no JSON.
    if not isinstance(one[a], dict | list) and not isinstance(other[b], dict | list):
        one[a], other[b] = other[b], one[a]


def repeat(content: Any, chance: random.Random) -> None:
    lists = [c[k] for c, k in places(content) if isinstance(c[k], list) and c[k]]
    chosen = chance.choice(lists)
    chosen.extend(chosen * chance.choice([1, 1, 50]))


IN_CONFIGURATION = (change_value, change_number, change_text, change_key, lose, swap, repeat)


# Edits of bytes and of files


def flip_bits(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    # Half of the flips hit the beginning, which says what the rest is.
    end = chance.choice([len(content), min(len(content), 400)])
    for _ in range(chance.choice([1, 1, 1, 8, 64]) if content else 0):
        content[chance.randrange(end)] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.choice([0, 1, 7, 8, 9, chance.randrange(path.stat().st_size + 1)]))


def insert(path: Path, chance: random.Random) -> None:
    content, at = path.read_bytes(), chance.randrange(path.stat().st_size + 1)
    path.write_bytes(content[:at] + chance.choice([b"\0" * 64, b"\xff" * 8, chance.randbytes(9), content[:40]]) + content[at:])


def overwrite(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content) + 1)
    content[at : at + 32] = chance.choice([b"\0", b"\xff", b"[", b'"']) * len(content[at : at + 32])
    path.write_bytes(content)


def append(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.choice([b"\0", b"\n", b"{}", b"x" * 10_000]))


def other_contents(path: Path, chance: random.Random) -> None:
    # A pickle that makes the canary when it is read, code, and JSON that is too deep for the parser or for us.
    pickled = b"cos\nsystem\n(S'touch " + CANARY.encode() + b"'\ntR."
    code = f"import os; os.system('touch {CANARY}')".encode()
    levels = chance.choice([900, 3_000, 200_000])
    path.write_bytes(chance.choice([b"", b"null", b"[]", b'""', pickled, code, deep(levels=levels).encode(), os.urandom(100)]))


def header_claims(path: Path, chance: random.Random) -> None:
    """A safetensors header that says something else than what follows."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensor = header[chance.choice([name for name in header if name != "__metadata__"])]
    change = chance.choice(["shape", "dtype", "offsets", "length", "name", "deep", "metadata"])
    if change == "shape":
        tensor["shape"] = chance.choice(
            [[], [0], [2**62, 4], [-1], [1.5], [10**30], tensor["shape"][::-1], [*tensor["shape"], 1]]
        )
    if change == "dtype":
        tensor["dtype"] = chance.choice(["F64", "BOOL", "I8", "F8_E4M3", "BF16", "object", None, 3])
    if change == "offsets":
        tensor["data_offsets"] = chance.choice([[0, 2**63], [2**64, 2**65], [-1, 4], [8, 0], [0], "x", [0, 10**9]])
    if change == "name":
        header[chance.choice(NAMES[:12])] = header.pop(next(iter(header)))
    if change == "metadata":
        header["__metadata__"] = chance.choice([{"a": 1}, {"a": "b" * 10**6}, [], "x", None])
    text = deep().encode() if change == "deep" else json.dumps(header).encode("utf-8", "replace")
    claimed = chance.choice([2**64 - 1, 2**63, 10**9, 0, len(text) + 1]) if change == "length" else len(text)
    path.write_bytes(claimed.to_bytes(8, "little") + text + content[8 + length :])


def other_tensors(path: Path, chance: random.Random) -> None:
    """A sound safetensors file with other names, shapes, dtypes or numbers."""
    try:
        tensors = load_file(path)
    except Exception:  # edited before
        return
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    change = chance.randrange(6)
    if change == 0:
        tensors[name] = np.zeros(chance.choice([(0,), (1,), (1, 1, 1), tensor.shape[::-1], (*tensor.shape, 1)]), tensor.dtype)
    if change == 1:
        with np.errstate(over="ignore", invalid="ignore"):  # an earlier edit may have left numbers that do not fit
            tensors[name] = tensor.astype(chance.choice([np.float16, np.int8, np.float64, np.bool_]))
    if change == 2 and tensor.dtype.kind == "f":
        tensor.reshape(-1)[chance.randrange(tensor.size)] = chance.choice([np.nan, np.inf, -np.inf, 3e38])
    if change == 3:
        tensors.pop(name)
    if change == 4:
        tensors["extra"] = np.zeros(3)
    if change == 5:
        tensors[name] = np.full_like(tensor, chance.choice([0, 1, 255 if tensor.dtype == np.uint8 else 1]))
    save_file(tensors, path)


def no_file(path: Path, chance: random.Random) -> None:
    """What is no ordinary file, or one that is elsewhere."""
    path.unlink()
    kind = chance.choice(["none", "folder", "pipe", "zeros", "loop", "dangling", "elsewhere", "sparse"])
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    targets = {"zeros": "/dev/zero", "loop": path.name, "dangling": "nowhere", "elsewhere": "/etc/passwd"}
    if kind in targets:
        path.symlink_to(targets[kind])


BYTES = (flip_bits, flip_bits, truncate, insert, overwrite, append, other_contents)
TENSORS = (header_claims, header_claims, other_tensors, other_tensors)


def read(path: Path) -> Any:
    """The content of a JSON file; a pipe would keep us waiting."""
    if not path.is_file() or path.stat().st_size > 10**7:
        raise OSError("an edit has been here")
    return json.loads(path.read_bytes())


def damage(folder: Path, config_name: str, chance: random.Random) -> list[str]:
    """One to three edits; returns their names. Afterwards, hashes fit again in half of the cases, so that checks behind them
    are reached."""
    done = []
    for _ in range(chance.choice([1, 1, 2, 3])):
        config = folder / config_name
        edit = chance.choice([*IN_CONFIGURATION, *IN_CONFIGURATION, *BYTES, *TENSORS, *TENSORS, no_file])
        done.append(edit.__name__)
        if edit in IN_CONFIGURATION:
            with suppress(OSError, ValueError, RecursionError, IndexError, TypeError):  # another edit has been there
                content = read(config)
                edit(content, chance)
                config.write_text(json.dumps(content, ensure_ascii=chance.random() < 0.9), encoding="utf-8")
            continue
        files = [one for one in folder.iterdir() if one.is_file() and not one.is_symlink() and one.stat().st_size < 10**7]
        if edit in TENSORS:
            files = [one for one in files if one.suffix == ".safetensors"]
        if files:
            with suppress(ValueError, KeyError, IndexError, StopIteration, AttributeError, RecursionError):
                edit(chance.choice(sorted(files)), chance)
    if chance.random() < 0.5:
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
            content = read(folder / config_name)
            there = [one for one in folder.glob("*.safetensors") if one.is_file() and one.stat().st_size < 10**7]
            content["files"] = {one.name: sha256(one) for one in there} if "files" in content else content["files"]
            (folder / config_name).write_text(json.dumps(content))
    return done
