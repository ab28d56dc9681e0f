"""What a folder holds that new masks would replace, and whether `clas masks` or `clas tune` wrote it."""

from __future__ import annotations

from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import sha256
from lm_eval_clas.disk.hash_lines import RECORD
from lm_eval_clas.disk.tensors import tensor_names
from lm_eval_clas.disk.written import foreign, noted
from lm_eval_clas.masks.mask_config import MASKS_CONFIG_FILE, MaskConfig, read_config
from lm_eval_clas.masks.strengths import Tuned

MASKS_FILE = "masks.safetensors"
PROFILE_FILE = "profile.safetensors"
RESIDUAL_FILE = "residual.safetensors"
# By file, the tensors that it may have: what shows that it is ours where a killed process left it without its configuration.
TENSORS = {
    MASKS_FILE: {"active", "specific", "routed"},
    PROFILE_FILE: {"means", "counts"},
    RESIDUAL_FILE: {"means", "norms", "sentences"},
}
# What belongs to a folder of masks on the Hub; it is never written here.
CARD, PICTURE = "README.md", "categories.png"
MASKS_FILES = (MASKS_CONFIG_FILE, *TENSORS)
# What else may lie in a folder of masks.
_BESIDE = (CARD, PICTURE, RECORD)


def strange_masks(folder: Path) -> list[Path]:
    """The files with names of a mask folder that are none: they may not be replaced."""
    return [path for path in (folder / name for name in MASKS_FILES) if not _ours(path)]


def require_masks_place(folder: Path, force: bool = False) -> list[Path]:
    """Refuses a folder where files would be replaced that are no masks; with force, returns them.

    Raises:
        ClasError: there is such a file; the message names it.
    """
    if (strange := strange_masks(folder)) and not force:
        raise ClasError(f"'{strange[0]}' is not of masks that this program wrote; give another folder, or move it away.")
    return strange


def strange_files(folder: Path) -> list[Path]:
    """Everything in a folder that is no part of masks, or was changed since they were written, but for hidden files."""
    parts = (*MASKS_FILES, *_BESIDE)
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    strange = [path for path in there if not path.name.startswith(".") and path.name not in parts] + strange_masks(folder)
    config = folder / MASKS_CONFIG_FILE
    return strange + [one for one in [config] if one not in strange and noted(one) and foreign(one)]


def lost(folder: Path, after: MaskConfig | None, means: bool, residual: bool) -> list[str]:
    """What masks in a folder have that new ones would not, in words.

    Args:
        folder: of masks, or of nothing.
        after: what the new masks come from and keep the strengths of; None if they have none.
        means, residual: whether the new ones have means of neurons, and what leaves the layers.
    """
    before = _config(folder)
    if before is None:
        return []
    kept = {} if after is None else _tuned(after)
    found = [f"the strengths tuned for {', '.join(gone)}"] if (gone := _without(_tuned(before), kept)) else []
    found += [f"the means ({PROFILE_FILE})"] if PROFILE_FILE in before.files and not means else []
    return found + ([f"what leaves the layers ({RESIDUAL_FILE})"] if RESIDUAL_FILE in before.files and not residual else [])


def _tuned(config: MaskConfig) -> Tuned:
    """Strengths by what they are for, in words (task families, and by other methods than CLAS), and by language."""
    by_method = [("", config.tuned), *((f" by {name}", tuned) for name, tuned in config.tuned_methods.items())]
    return {family + by: languages for by, tuned in by_method for family, languages in tuned.items()}


def _without(before: Tuned, after: Tuned) -> list[str]:
    """What strengths are for that are not among others, or are others there; with languages, where it is some of them."""
    told = []
    for what, languages in before.items():
        gone = [one for one, strength in languages.items() if after.get(what, {}).get(one) != strength]
        told += [what if len(gone) == len(languages) else f"{what} ({', '.join(gone)})"] if gone else []
    return told


def _ours(path: Path) -> bool:
    if not path.exists() and not path.is_symlink():
        return True
    if path.is_symlink() or not path.is_file() or not path.stat().st_mode & 0o222:
        return False
    if foreign(path) is None:
        return True
    before = _config(path.parent)
    if path.name == MASKS_CONFIG_FILE:
        return before is not None
    if before is not None and before.files.get(path.name) == sha256(path):
        return True
    names = tensor_names(path)
    return bool(names) and names <= TENSORS[path.name]


def _config(folder: Path) -> MaskConfig | None:
    try:
        return read_config(folder)
    except ClasError:
        return None
