"""A model's checkpoint as safetensors files, local or on the Hub: which holds which weight, and copies with some changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.decoder.anatomy.decoder_lists import from_layers_on, keys_of_layer, likeliest_list
from lm_eval_clas.decoder.anatomy.linear_parts import is_transposed
from lm_eval_clas.decoder.mixtures.expert_weights import expert_scales
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import put_text
from lm_eval_clas.disk.tensor_bytes import TensorBytes, copy_with, header, overwrite_tensor

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# What makes a checkpoint whole beside its weights: configurations, tokenizer, chat template, code, licence.
_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "LICENSE*", "NOTICE*", "USE_POLICY*")
_NOT_BESIDE = ("*.bin.index.json", "*.h5.index.json", "*.msgpack.index.json")
_WEIGHT, _BIAS = ".weight", ".bias"
_Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_TIMES = ("times these factors", ", or --format ia3")  # what does not fit, and what else could be done
_PLUS = ("with this bias", "")
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


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
            module: Any = place.module
            hidden = module.down_proj.shape[2 if module.is_transposed else 1]
            by_expert = factors.reshape(place.experts, -1)
            found = expert_scales(place.name, bool(module.is_transposed), hidden, by_expert, shapes)
        else:
            key = weight_key(place.name, self.files)
            self._require_shape(key, list(place.module.weight.shape))  # type: ignore[union-attr, arg-type]
            found = {key: factors[:, None] if is_transposed(place.module) else factors[None, :]}
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
        if there.get("dtype") not in _FLOATS:
            raise ClasError(
                f"The checkpoint's '{key}' is quantised ({there.get('dtype')}), and scaling would need to quantise it again; "
                "use --format ia3, or merge the unquantised model and quantise that."
            )

    def image(self, place: Projection, shift: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """W t, what a constant on a linear module's neurons is worth behind it; float32, or float64 where the weight is that.

        Raises:
            ClasError: as `scales`.
        """
        (key,) = self.scales(place, np.ones_like(shift))
        weight, wide = self._read(key)
        matrix = weight.to(wide)
        matrix = matrix.T if is_transposed(place.module) else matrix
        found: NDArray[np.floating[Any]] = (matrix @ torch.from_numpy(shift).to(wide)).numpy()
        return found

    def bias_key(self, module: str) -> str:
        """The key that the bias of a module has, or would have: beside its weight.

        Raises:
            ClasError: the checkpoint has no such weight, several, or one that is quantised.
        """
        key = weight_key(module, self.files)
        self._require_floats(key)
        return key.removesuffix(_WEIGHT) + _BIAS

    def copy_changed(
        self,
        folder: Path,
        factors: Mapping[str, NDArray[np.float32]],
        added: Mapping[str, NDArray[np.floating[Any]]] = MappingProxyType({}),
        report: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the checkpoint with tokenizer and configuration into a folder. All bytes stay but those of changed weights.

        One weight at a time is in memory.

        Args:
            folder: an empty one.
            factors: by weight, float32, what it is multiplied by.
            added: by bias, as `bias_key` names it, what is added to it. One that the checkpoint lacks is 0 before that, and
                stands in the copy beside its weight, in the weight's dtype.
            report: called after each file of weights.

        Raises:
            ClasError: a product or a sum does not fit the weight's dtype.
        """
        for name in _beside(self.folder):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, folder / name)
        lacking = {key: key.removesuffix(_BIAS) + _WEIGHT for key in added if key not in self.files}
        for shard in self.shards:
            here = {key: beside for key, beside in lacking.items() if self.files[beside] == shard}
            new = {key: self._new_bias(key, beside, added[key]) for key, beside in here.items()}
            copy_with(self.folder / shard, folder / shard, new)
            for key in (key for key in factors if self.files[key] == shard):
                overwrite_tensor(folder / shard, key, self._changed(key, factors[key], torch.mul, *_TIMES))
            for key in (key for key in added if self.files.get(key) == shard):
                overwrite_tensor(folder / shard, key, self._changed(key, added[key], torch.add, *_PLUS))
            report()
        if lacking and (folder / _INDEX).is_file():
            _list_too({key: self.files[beside] for key, beside in lacking.items()}, folder)

    def _read(self, key: str) -> tuple[torch.Tensor, torch.dtype]:
        """A weight, and the dtype that it is changed in: float32, or float64 where it is that."""
        with safe_open(self.folder / self.files[key], framework="pt") as tensors:
            weight: torch.Tensor = tensors.get_tensor(key)
        return weight, torch.promote_types(weight.dtype, torch.float32)

    def _changed(self, key: str, numbers: NDArray[np.floating[Any]], change: _Change, how: str, else_: str) -> bytes:
        weight, wide = self._read(key)
        changed = change(weight.to(wide), torch.from_numpy(numbers).to(wide)).to(weight.dtype)
        if not changed.isfinite().all() and weight.isfinite().all():
            raise ClasError(f"'{key}' {how} does not fit {weight.dtype}; choose a smaller alpha{else_}.")
        return _bytes(changed)

    def _new_bias(self, key: str, beside: str, numbers: NDArray[np.floating[Any]]) -> TensorBytes:
        written = str(header(self.folder / self.files[beside])[0][beside]["dtype"])
        bias = torch.from_numpy(numbers).to(_FLOATS[written])
        if not bias.isfinite().all():
            raise ClasError(f"'{key}' {_PLUS[0]} does not fit {bias.dtype}; choose a smaller alpha{_PLUS[1]}.")
        return TensorBytes(written, tuple(bias.shape), _bytes(bias))


def weight_key(module: str, keys: Collection[str]) -> str:
    """The key of a module's weight: its own name, or the one that is the same from the list of layers on.

    A checkpoint that was saved from the model without its head lacks a prefix, and versions of transformers name what is
    around the decoder's layers differently; `transformer.h.0.mlp.c_proj` may be `h.0.mlp.c_proj.weight`. Other
    decoders in a checkpoint are told apart (`keys_of_layer`).

    Raises:
        ClasError: there is no such key, or there are several.
    """
    full = module + _WEIGHT
    if full in keys:
        return full
    _, end = from_layers_on(full)
    ending = {one: [key for key in here if f".{key}".endswith(f".{end}")] for one, here in keys_of_layer(full, keys).items()}
    found = [key for one in likeliest_list(full, [one for one in ending if ending[one]]) for key in ending[one]]
    if len(found) != 1:
        what = f"several weights that could be it ({', '.join(found[:3])})" if found else f"none that ends in '{end}'"
        raise ClasError(f"The checkpoint has no weight '{full}', and {what}; it cannot be merged: use --format ia3.")
    return found[0]


def _bytes(tensor: torch.Tensor) -> bytes:
    data: bytes = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return data


def _list_too(added: Mapping[str, str], folder: Path) -> None:
    """Names more weights in a copy's index, with the file of each, and tells what the files hold now."""
    content = read_json(folder / _INDEX)
    content["weight_map"].update(added)
    told = content.get("metadata", {})
    headers = {shard: header(folder / shard)[0] for shard in set(added.values())}
    for key, shard in added.items():
        first, last = headers[shard][key]["data_offsets"]
        for name, more in (("total_size", last - first), ("total_parameters", headers[shard][key]["shape"][0])):
            if name in told:
                told[name] += more
    put_text(folder / _INDEX, json.dumps(content, indent=2) + "\n")


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
