"""safetensors files of any size as bytes: what one says of its tensors, and copies with tensors replaced or added."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_clas.disk.checked_json import parse_json

_LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it
_METADATA = "__metadata__"
_AT_ONCE = 1 << 24  # bytes that are copied at once


@dataclass(frozen=True)
class TensorBytes:
    """One tensor: its dtype as safetensors names it, its shape, and its numbers."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """What a safetensors file says of its tensors (`dtype`, `shape`, `data_offsets` by name), and where their bytes begin.

    Raises:
        ValueError: it is no such file.
    """
    content, begin = _whole_header(path)
    content.pop(_METADATA, None)
    return content, begin


def overwrite_tensor(path: Path, name: str, data: bytes) -> None:
    """Writes a tensor over its bytes; dtype and shape stay."""
    entries, begin = header(path)
    first, last = entries[name]["data_offsets"]
    assert len(data) == last - first
    with path.open("r+b") as file:
        file.seek(begin + first)
        file.write(data)


def copy_with(source: Path, copy: Path, added: Mapping[str, TensorBytes]) -> None:
    """Copies a file, with more tensors after its own; without any, byte for byte.

    Raises:
        ValueError: it is no safetensors file.
    """
    if not added:
        shutil.copyfile(source, copy)
        return
    content, begin = _whole_header(source)
    end = source.stat().st_size - begin
    for name, tensor in added.items():
        content[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + len(tensor.data)]}
        end += len(tensor.data)
    written = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)  # numbers begin at a multiple of eight, as safetensors has it
    with source.open("rb") as old, copy.open("wb") as new:
        new.write(len(written).to_bytes(8, "little") + written)
        old.seek(begin)
        shutil.copyfileobj(old, new, _AT_ONCE)
        for tensor in added.values():
            new.write(tensor.data)


def _whole_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_LARGEST_HEADER, path.stat().st_size):
            raise ValueError(f"'{path.name}' is no safetensors file")
        content = parse_json(file.read(length))
    if not isinstance(content, dict) or not all(isinstance(tensor, dict) for tensor in content.values()):
        raise ValueError(f"'{path.name}' is no safetensors file")
    return content, 8 + length
