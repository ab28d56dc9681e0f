"""Whether the weights in a local folder are still those that they were, without reading all of them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from lm_eval_clas.base.errors import ClasError

_SUFFIXES = (".safetensors", ".bin", ".gguf")
_ADDED = ("peft", "delta")  # arguments of the harness's models that name further weights
_PIECES, _PIECE = 256, 1 << 14  # bytes


def weights_hash(model: str, model_args: str) -> str | None:
    """16 hex digits over the weight files of a model and of what is added to it, as far as they lie in local folders.

    They are names, sizes, and pieces that are spread evenly over each file: training changes them, copying does not.

    Args:
        model: a folder, or a name on the Hub.
        model_args: as the harness takes them, for adapters and delta weights.

    Returns:
        None where no folder is named, as for models of the Hub, or none has weights.

    Raises:
        ClasError: a file cannot be read.
    """
    named = (part.partition("=") for part in model_args.split(","))
    folders = [model, *(value for name, _, value in named if name in _ADDED)]
    found = [
        (path.name, _sampled(str(path.resolve()), (known := path.stat()).st_size, known.st_mtime_ns))
        for folder in folders
        for path in _weight_files(folder)
    ]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else None


def _weight_files(folder: str) -> list[Path]:
    if not folder:  # of a model that was made in memory
        return []
    try:
        return sorted(path for path in Path(folder).iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except (OSError, ValueError):  # no folder, or no path at all
        return []


@cache
def _sampled(path: str, size: int, modified: int) -> str:
    """The size of a file and a hash of its pieces; looked at anew once it was modified."""
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - _PIECE)
    try:
        with open(path, "rb") as file:
            for start in sorted({last * number // (_PIECES - 1) for number in range(_PIECES)}):
                file.seek(start)
                digest.update(file.read(_PIECE))
    except OSError as error:
        raise ClasError(
            f"Cannot read the weights '{path}' ({error.strerror}); see to its rights, or load another model."
        ) from error
    return digest.hexdigest()
