"""safetensors files whose tensors are known beforehand: written whole, and looked at before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lm_eval_clas.disk.files import sha256, write_bytes

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name

_LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it
_NAMES = {"U8": "uint8", "I64": "int64", "F32": "float32", "F64": "float64"}


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file, whole or not at all. The same tensors give the same bytes: metadata, whose order is random, is not used.

    Raises:
        ClasError: it cannot be written.
    """
    write_bytes(path, save(dict(tensors)))


def read_tensors(path: Path, expected: Shapes, digest: str | None = None) -> dict[str, NDArray[Any]]:
    """Reads a file that holds exactly these tensors.

    What the file says of itself is checked before its contents are read, so that memory and time are those of the tensors
    that are expected, whatever it is.

    Args:
        path: the file.
        expected: dtype and shape of each tensor by name.
        digest: the SHA-256 that the file must have, in hex.

    Raises:
        ValueError: it is no such file, cannot be read, or is not the expected one; the message says which.
    """
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise ValueError("it is missing, or no ordinary file")
        if path.stat().st_size > _LARGEST_HEADER + sum(
            np.dtype(one).itemsize * prod(shape) for one, shape in expected.values()
        ):
            raise ValueError("it is too large")
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            for name, (dtype, shape) in expected.items():
                is_there = name in found and tuple(found[name].get_shape()) == shape
                if not is_there or _NAMES.get(found[name].get_dtype()) != dtype:
                    raise ValueError(f"it must hold '{name}' as {dtype} {list(shape)}, and does not")
            if len(found) > len(expected):
                raise ValueError("it holds tensors that do not belong there")
            if digest is not None and sha256(path) != digest:
                raise ValueError("it was changed: its SHA-256 is another")
            return {name: file.get_tensor(name) for name in expected}
    except (OSError, SafetensorError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error).splitlines()[0]) from error


def tensor_names(path: Path) -> set[str]:
    """The names of a file's tensors; none, if it is no safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (OSError, SafetensorError):
        return set()
