"""A model's checkpoint as safetensors files, local or on the Hub: which holds which weight, and copies with some scaled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.decoder.anatomy.decoder_lists import OTHER_TOWERS
from lm_eval_clas.decoder.mixtures.expert_weights import expert_scales
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.disk.checked_json import parse_json, read_json

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# What makes a checkpoint whole beside its weights: configurations, tokenizer, chat template, code, licence.
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "LICENSE*", "NOTICE*", "USE_POLICY*")
_NOT_BESIDE = ("*.bin.index.json", "*.h5.index.json", "*.msgpack.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors files.

    Attributes:
        folder: where they are.
        files: the name of the file by weight.
    """

    folder: Path
    files: dict[str, str]

    @classmethod
    def find(cls, pretrained: str, revision: str | None = None) -> Checkpoint:
        """The checkpoint of a local folder, or of a Hub repository (downloaded, or from the Hub's cache).

        Raises:
            ClasError: there is none, or none in safetensors.
        """
        local = Path(pretrained).is_dir()
        folder = Path(pretrained) if local else _snapshot(pretrained, revision, _BESIDE)
        named = _index(folder, pretrained)
        if not local:
            # By name: some repositories hold the weights in a second form beside transformers' own.
            folder = _snapshot(pretrained, revision, [*_BESIDE, _ONE, *set(named.values())])
        if (folder / _ONE).is_file():  # transformers looks for the one file first, too
            try:
                named = dict.fromkeys(header(folder / _ONE)[0], _ONE)
            except ValueError as error:
                raise ClasError(f"The weights of '{pretrained}' cannot be read ({error}); fetch the model again.") from error
        elif not named:
            raise ClasError(
                f"'{pretrained}' has no safetensors weights ({_ONE} or {_INDEX}), and only those are merged; load it with "
                "transformers and save it with save_pretrained, which writes them."
            )
        for name in sorted(set(named.values())):
            if not (folder / name).is_file():
                raise ClasError(f"'{pretrained}' names the file '{name}' in {_INDEX}, but has none; fetch the model again.")
        return cls(folder, named)

    @property
    def shards(self) -> list[str]:
        """The names of the files with weights, in order."""
        return sorted(set(self.files.values()))

    @property
    def names(self) -> list[str]:
        """The names of all files that a copy is made from: weights, and what makes a checkpoint whole beside them."""
        return sorted({*_beside(self.folder), *self.shards})

    @property
    def size(self) -> int:
        """Bytes of all files with weights."""
        return sum((self.folder / name).stat().st_size for name in self.shards)

    def scales(self, place: Projection, factors: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """What to multiply the weights of a place by, by their names: arrays that broadcast over them.

        A weight may have another beginning than its module: it depends on what was saved.

        Args:
            place: a linear module, or experts.
            factors: of its neurons, float32.

        Raises:
            ClasError: the checkpoint has no such weight, several, or one of another shape.
        """
        if place.experts:
            headers = {shard: header(self.folder / shard)[0] for shard in self.shards}
            shapes = {key: headers[shard][key]["shape"] for key, shard in self.files.items() if key in headers[shard]}
            module, by_expert = place.module, factors.reshape(place.experts, -1)
            found = expert_scales(place.name, module.down_proj.shape, bool(module.is_transposed), by_expert, shapes)  # type: ignore[arg-type, union-attr]
        else:
            key = weight_key(place.name, self.files)
            transposed = type(place.module).__name__ == "Conv1D"  # GPT-2's is [neurons, hidden]
            self._require_shape(key, list(place.module.weight.shape))  # type: ignore[union-attr, arg-type]
            found = {key: factors[:, None] if transposed else factors[None, :]}
        for key in found:
            self._require_floats(key)
        return found

    def _require_shape(self, key: str, shape: list[int]) -> None:
        there = header(self.folder / self.files[key])[0].get(key, {})
        if there.get("shape") != shape:
            raise ClasError(
                f"The checkpoint's '{key}' is {there.get('dtype')} {there.get('shape')}, and the model's is {shape}; it "
                "cannot be merged: use --format ia3."
            )

    def _require_floats(self, key: str) -> None:
        there = header(self.folder / self.files[key])[0].get(key, {})
        if there.get("dtype") not in ("F64", "F32", "F16", "BF16"):
            raise ClasError(
                f"The checkpoint's '{key}' is quantised ({there.get('dtype')}), and scaling would need to quantise it again; "
                "use --format ia3, or merge the unquantised model and quantise that."
            )

    def copy_scaled(
        self,
        folder: Path,
        factors: dict[str, NDArray[np.float32]],
        report: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the checkpoint with tokenizer and configuration into a folder. All bytes stay but those of scaled weights.

        One weight at a time is in memory.

        Args:
            folder: an empty one.
            factors: by weight, float32, what it is multiplied by.
            report: called after each file of weights.

        Raises:
            ClasError: a product does not fit the weight's dtype.
        """
        for name in _beside(self.folder):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, folder / name)
        for shard in self.shards:
            shutil.copyfile(self.folder / shard, folder / shard)
            for key in (key for key in factors if self.files[key] == shard):
                _write_scaled(self.folder / shard, folder / shard, key, factors[key])
            report()


def weight_key(module: str, keys: Collection[str]) -> str:
    """The key of a module's weight: its own name, or the one that is the same from the list of layers on.

    A checkpoint that was saved from the model without its head lacks a prefix, and versions of transformers name what is
    around the decoder's layers differently; `transformer.h.0.mlp.c_proj` may be `h.0.mlp.c_proj.weight`.

    Raises:
        ClasError: there is no such key, or there are several.
    """
    full = f"{module}.weight"
    if full in keys:
        return full
    parts = full.split(".")
    layer = next((i for i, part in enumerate(parts) if part.isdigit()), 1)
    end = ".".join(parts[max(layer - 1, 0) :])
    found = [key for key in keys if f".{key}".endswith(f".{end}") and not OTHER_TOWERS.search(key)]
    if len(found) != 1:
        what = f"several weights that could be it ({', '.join(found[:3])})" if found else f"none that ends in '{end}'"
        raise ClasError(f"The checkpoint has no weight '{full}', and {what}; it cannot be merged: use --format ia3.")
    return found[0]


def header(path: Path) -> tuple[dict[str, dict[str, object]], int]:
    """What a safetensors file says of its tensors (`dtype`, `shape`, `data_offsets` by name), and where their bytes begin.

    Raises:
        ValueError: it is no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(100_000_000, path.stat().st_size):  # safetensors' own limit
            raise ValueError(f"'{path.name}' is no safetensors file")
        content = parse_json(file.read(length))
    if not isinstance(content, dict) or not all(isinstance(tensor, dict) for tensor in content.values()):
        raise ValueError(f"'{path.name}' is no safetensors file")
    content.pop("__metadata__", None)
    return content, 8 + length


def _write_scaled(source: Path, copy: Path, key: str, factors: NDArray[np.float32]) -> None:
    """Multiplies one weight in float32 (float64 where it is that) and writes it over its bytes in the copy, in its dtype."""
    import torch
    from safetensors import safe_open

    with safe_open(source, framework="pt") as tensors:
        weight = tensors.get_tensor(key)
    wide = torch.promote_types(weight.dtype, torch.float32)
    scaled = (weight.to(wide) * torch.from_numpy(factors).to(wide)).to(weight.dtype).contiguous()
    if not scaled.isfinite().all() and weight.isfinite().all():
        raise ClasError(f"'{key}' times these factors does not fit {weight.dtype}; choose a smaller alpha, or --format ia3.")
    entries, begin = header(source)
    first, last = entries[key]["data_offsets"]  # type: ignore[misc]
    data = scaled.view(torch.uint8).numpy().tobytes()
    assert len(data) == last - first  # type: ignore[has-type]
    with copy.open("r+b") as file:
        file.seek(begin + first)  # type: ignore[has-type]
        file.write(data)


def _beside(folder: Path) -> list[str]:
    """The files that are copied as they are. Of folders inside, only chat templates: others hold the weights in other forms."""
    names = {path.name for pattern in _BESIDE for path in folder.glob(pattern) if path.is_file()}
    names -= {path.name for pattern in _NOT_BESIDE for path in folder.glob(pattern)} | {"README.md"}
    return sorted(names | {f"{path.parent.name}/{path.name}" for path in folder.glob("additional_chat_templates/*.jinja")})


def _index(folder: Path, pretrained: str) -> dict[str, str]:
    """The file of each weight as the index tells it; nothing where there is no index."""
    try:
        files = read_json(folder / _INDEX)["weight_map"]
        if any(Path(name).name != name for name in files.values()):
            raise ValueError("it names files outside the folder")
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ClasError(f"The file {_INDEX} of '{pretrained}' is damaged ({error}); fetch the model again.") from error
    return dict(files)


def _snapshot(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(files), ignore_patterns=list(_NOT_BESIDE))
        )
    except Exception as error:  # the Hub's client raises every kind, of several libraries
        reason = first_line(error)
        raise ClasError(f"Cannot fetch the weights of '{repository}': {reason}") from error
