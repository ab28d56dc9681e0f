"""`clas profile --site residual` and `clas masks --residual`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from small_models import HIDDEN, LAYERS, Run

from lm_eval_clas import MaskSet
from lm_eval_clas.neurons.residual_folder import ResidualProfile

TEXTS = ("--corpus", "mini", "--samples", 2, "--languages", "en,hi", "--max-tokens", 30, "--device", "cpu")


def test_from_two_profiles_to_masks_that_methods_can_use(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    neurons, residual, masks = tmp_path / "neurons", tmp_path / "residual", tmp_path / "masks"
    for out, site in ((neurons, "mlp"), (residual, "residual")):
        code, told, error = clas("profile", "--model", checkpoint, *TEXTS, "--site", site, "--out", out)
        assert code == 0, error
    assert "clas masks PROFILE --residual" in " ".join(told.split())
    made = ("masks", neurons, "--bridge", "2-3", "--threshold", 0, "--out", masks)
    code, told, error = clas(*made, "--residual", residual)
    assert code == 0, error
    assert "residual  mini, 2 samples" in told
    loaded = MaskSet.load(masks)
    assert loaded.residual is not None
    assert loaded.residual.means.shape == (2, LAYERS, HIDDEN)
    source = json.loads((masks / "clas_config.json").read_text())["residual"]
    assert (source["languages"], source["layers"], source["corpus"]["samples"]) == (["en", "hi"], [2, 3], 2)

    code, _, error = clas(*made)
    assert code == 2
    assert "would not have what leaves the layers (residual.safetensors)" in " ".join(error.split())
    code, _, error = clas("masks", residual, "--out", tmp_path / "other")
    assert code == 2
    assert "is a profile of site residual, and not of neurons; give one that 'clas profile' made" in " ".join(error.split())
    code, _, error = clas("masks", neurons, "--bridge", "2-3", "--residual", neurons, "--out", tmp_path / "other")
    assert code == 2
    assert "make one with 'clas profile --site residual'" in " ".join(error.split())
    code, _, error = clas(
        "profile", "--model", checkpoint, *TEXTS, "--site", "residual", "--level", "instance", "--out", residual
    )
    assert code == 2
    assert "--level is about neurons, and --site residual has none; drop it." in " ".join(error.split())
    shorter = ResidualProfile.load(residual)
    assert shorter.languages == ("en", "hi")
