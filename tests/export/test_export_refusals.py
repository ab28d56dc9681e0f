"""What cannot be exported is said, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import write
from safetensors.torch import load_file, save_file

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.export.merged_checkpoint import mergeable, require_space
from lm_eval_clas.export.outline import outline, scalings

pytest.importorskip("peft")


@pytest.mark.parametrize(
    ("languages", "options", "message"),
    [
        (["en"], {}, "the anchor is never steered"),
        (["fr"], {}, "no language 'fr'"),
        (["hi"], {"alpha": 0}, "its strength is 0"),
        (None, {"method": "off"}, "nothing to export: hi: its strength is 0"),
        (["hi"], {"method": "int-mu"}, "make masks from the profile with 'clas masks PROFILE --keep-means'"),
        (["hi"], {"alpha": "tuned"}, "run 'clas tune'"),
        (["hi"], {"task": "clas_xnli"}, "add --alpha tuned"),
        (["hi"], {"layers": "2-9"}, "out of range"),
        (["hi"], {"alpha": "much"}, "alpha must be a number"),
    ],
)
def test_what_cannot_be_exported_is_said(
    source_masks: MaskSet, languages: list[str] | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClasError, match=message):
        scalings(source_masks, languages, **{"alpha": 1.0, **options})


def _quantise(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))


def _only_bin(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def _lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[1].unlink()


def _break_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')


def _one_file_of_noise(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)


def _other_weight(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = {key: one for path in folder.glob("*.safetensors") for key, one in load_file(path).items()}
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        key = "model.layers.4.mlp.down_proj.weight"
        save_file({**tensors, key: change(tensors[key])}, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_quantise, "is quantised.*--format ia3"),
        (_only_bin, "has no safetensors weights.*save_pretrained"),
        (_lose_a_shard, "but has none; fetch the model again"),
        (_break_the_index, "names files outside the folder"),
        (_one_file_of_noise, "cannot be read"),
        (_other_weight(lambda weight: weight.T.contiguous()), "cannot be merged"),
        (_other_weight(lambda weight: weight.to(torch.float8_e4m3fn)), "F8_E4M3"),
        (_other_weight(lambda weight: weight.half() * 0 + 60000), "does not fit torch.float16; choose a smaller alpha"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_nothing_is_left(
    source: Path, source_masks: MaskSet, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(source)
    (tmp_path / "out").mkdir()
    with pytest.raises(ClasError, match=message):
        write("merged", source_masks, source, tmp_path / "out" / "merged", alpha=5)
    assert not list((tmp_path / "out").iterdir())


def test_a_quantised_model_gets_an_adapter(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    _quantise(source)
    assert (write("ia3", source_masks, source, tmp_path / "ia3") / "adapter_model.safetensors").is_file()


def test_masks_of_another_model_and_no_model_at_all(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ClasError, match="made for another model"):
        outline(str(source), MaskSet.load("gemma-3-270m"))
    with pytest.raises(ClasError, match="Cannot read the configuration of the model"):
        outline(str(tmp_path), MaskSet.load("gemma-3-270m"))


def test_a_full_disk_is_told_before_and_during(
    source: Path, source_masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = outline(str(source), source_masks)
    with pytest.raises(ClasError, match=r"need [\d.]+ GB, and .* GB free"):
        require_space(mergeable(model), 10**12, tmp_path / "not" / "yet")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ClasError, match="No space left on device"):
        write("merged", source_masks, source, tmp_path / "out" / "merged")
    assert not (tmp_path / "out").exists()
