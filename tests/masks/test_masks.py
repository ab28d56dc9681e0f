"""The folder format: what is written reads back, and what is damaged is refused with one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from strengths_made import with_strengths

from lm_eval_clas import ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.disk.files import sha256, shipped
from lm_eval_clas.masks.inspection import overlap, summary
from lm_eval_clas.masks.mask_place import lost


@pytest.fixture
def folder(masks: MaskSet, tmp_path: Path) -> Path:
    return masks.save(tmp_path / "masks")


def test_what_is_written_reads_back(masks: MaskSet, folder: Path) -> None:
    again = MaskSet.load(folder)
    assert np.array_equal(again.active, masks.active)
    assert again.active.dtype == bool
    assert np.array_equal(again.categories, masks.categories)
    assert (again.languages, again.anchor, again.bridge_layers) == (masks.languages, masks.anchor, masks.bridge_layers)
    assert again.hash == masks.hash
    assert again.means is None
    assert sorted(path.name for path in folder.iterdir()) == ["clas_config.json", "clas_files.sha256", "masks.safetensors"]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_bits_are_packed_along_neurons(masks: MaskSet, folder: Path) -> None:
    packed = load_file(folder / "masks.safetensors")["active"]
    assert packed.dtype == np.uint8
    assert packed.shape == (*masks.active.shape[:2], -(-masks.active.shape[2] // 8))


def test_means_travel_along_if_asked(profiled: Profile, tmp_path: Path) -> None:
    kept = MaskSet.from_profile(profiled, bridge="2-3", keep_means=True)
    again = MaskSet.load(kept.save(tmp_path / "kept"))
    assert again.means is not None
    assert np.array_equal(again.means, profiled.mean("signed-mean", "all"))
    MaskSet.from_profile(profiled, bridge="2-3").save(tmp_path / "kept")
    assert MaskSet.load(tmp_path / "kept").means is None


def test_writing_is_deterministic(masks: MaskSet, folder: Path, tmp_path: Path) -> None:
    masks.save(tmp_path / "again")
    for name in ("clas_config.json", "masks.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_hash_follows_what_decides(masks: MaskSet, profiled: Profile) -> None:
    one_neuron = masks.active.copy()
    one_neuron[0, 0, 0] ^= True
    others = [
        MaskSet(masks.config, one_neuron),
        MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-3"),
        MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4", anchor="hi"),
    ]
    assert len({masks.hash, *(other.hash for other in others)}) == 4


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"qa": {"hi": 1, "de": 2}, "nli": {"hi": -1}}, ""),
        ({"qa": {"hi": 1, "de": 2, "zh": 4}, "nli": {"hi": -1}, "xquad": {"hi": 3}}, ""),
        ({"qa": {"hi": 1}, "nli": {"hi": -1}}, "qa (de)"),
        ({"qa": {"hi": 1, "de": -4}, "nli": {"hi": -1}}, "qa (de)"),
        ({"qa": {"zh": 1}, "nli": {"hi": -1}}, "qa"),
        ({"nli": {"de": -1}}, "qa, nli"),
    ],
)
def test_a_strength_is_lost_that_new_masks_lack_in_its_language_or_have_otherwise(
    masks: MaskSet, tmp_path: Path, kept: dict[str, dict[str, float]], told: str
) -> None:
    with_strengths(masks, {"qa": {"hi": 1, "de": 2}, "nli": {"hi": -1}}).save(tmp_path / "masks")
    found = lost(tmp_path / "masks", with_strengths(masks, kept).config, means=False, residual=False)
    assert found == ([f"the strengths tuned for {told}"] if told else [])


def test_strengths_of_another_method_are_others(masks: MaskSet, tmp_path: Path) -> None:
    tuned = with_strengths(masks, {"qa": {"hi": 1}})
    tuned.with_tuned(tuned.config.tuned, "int-mu").save(tmp_path / "masks")
    found = lost(tmp_path / "masks", tuned.config, means=False, residual=False)
    assert found == ["the strengths tuned for qa by int-mu"]


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "clas_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tokens(folder: Path, code: str) -> None:
    corpus = json.loads((folder / "clas_config.json").read_text())["corpus"]
    edit_config(folder, corpus={**corpus, "tokens": {code: 1}})


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "masks.safetensors").read_bytes())
    content[-5] ^= 4
    (folder / "masks.safetensors").write_bytes(content)


def other_shape(folder: Path) -> None:
    save_file({"active": np.zeros((4, 6, 5), np.uint8)}, folder / "masks.safetensors")
    edit_config(folder, files={"masks.safetensors": sha256(folder / "masks.safetensors")})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "clas_config.json").unlink(), "is not a mask folder"),
    "truncated configuration": (truncate("clas_config.json"), "cannot be read as a mask configuration"),
    "configuration is a list": (lambda f: (f / "clas_config.json").write_text("[1]"), "cannot be read as a mask"),
    "configuration is deep": (lambda f: (f / "clas_config.json").write_text("[" * 10**5), "cannot be read as a mask"),
    "newer format": (lambda f: edit_config(f, format_version=99), "format version 99.*install a version"),
    "format is no number": (lambda f: edit_config(f, format_version="1.0"), "format version '1.0'"),
    "unknown field": (lambda f: edit_config(f, extra=1), "is damaged: extra"),
    "field missing": (lambda f: edit_config(f, corpus={}), "is damaged: corpus.name"),
    "anchor unknown": (lambda f: edit_config(f, anchor="ja"), "anchor 'ja' is not one of its languages"),
    "language in capitals": (
        lambda f: edit_config(f, languages=["en", "HI", "de", "zh"]),
        "languages.1: language 'HI' is written 'hi'",
    ),
    "language with a script": (lambda f: edit_config(f, languages=["en", "hi", "de", "zh-hant"]), "'zh-hant' is written 'zh'"),
    "anchor in capitals": (lambda f: edit_config(f, anchor="EN"), "anchor: language 'EN' is written 'en'"),
    "tokens of no language": (lambda f: edit_tokens(f, "x y"), "corpus.tokens.*'x y' is no language code"),
    "tokens by another code": (lambda f: edit_tokens(f, "deu"), "corpus.tokens.*'deu' is written 'de'"),
    "tuned in capitals": (
        lambda f: edit_config(f, tuned={"clas_xnli": {"HI": {}}}),
        "tuned.clas_xnli.HI.*'HI' is written 'hi'",
    ),
    "added in capitals": (lambda f: edit_config(f, added={"HI": {}}), "added.HI.*'HI' is written 'hi'"),
    "language twice": (lambda f: edit_config(f, languages=["en", "en", "hi", "de"]), "listed twice"),
    "language missing": (lambda f: edit_config(f, languages=["en", "hi", "de"]), "must hold 'active'"),
    "layers outside": (lambda f: edit_config(f, bridge_layers=[4, 6]), "not ascending layers of 0-5"),
    "layers negative": (lambda f: edit_config(f, bridge_layers=[-1]), "not ascending layers of 0-5"),
    "no layers": (lambda f: edit_config(f, bridge_layers=[]), "is damaged: bridge_layers"),
    "beta infinite": (lambda f: edit_config(f, beta=float("inf")), "is damaged: beta"),
    "masks missing": (lambda f: (f / "masks.safetensors").unlink(), "it is missing"),
    "masks truncated": (truncate("masks.safetensors"), "is damaged"),
    "a bit flipped": (flip_a_bit, "it was changed: its SHA-256 is another"),
    "no hash": (lambda f: edit_config(f, files={}), "it was changed: its SHA-256 is another"),
    "other shape": (other_shape, "must hold 'active' as uint8"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_with_one_sentence(folder: Path, case: str) -> None:
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(ClasError, match=message) as caught:
        MaskSet.load(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_path_names_the_nearest_shipped_masks(tmp_path: Path) -> None:
    assert "gemma-3-270m" in {path.name for path in shipped("masks").iterdir()}
    for wrong in ("gemma-270m", "masks/gemma3", "./gema-3-270m", str(tmp_path / "gemma-3-270")):
        with pytest.raises(ClasError, match=r"nearest that ship with the package: gemma-3-270m"):
            MaskSet.load(wrong)
    (tmp_path / "file").touch()
    with pytest.raises(ClasError, match="is a file"):
        MaskSet.load(tmp_path / "file")


def test_shipped_masks_load_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert MaskSet.load("gemma-3-270m").hash == MaskSet.load("masks/gemma-3-270m").hash
    shutil.copytree(shipped("masks") / "gemma-3-270m", tmp_path / "masks" / "mine")
    assert MaskSet.load("masks/mine").hash == MaskSet.load("gemma-3-270m").hash


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ClasError, match=r"no masks 'someone/some-masks'.*Hub cannot be reached") as caught:
        MaskSet.load("someone/some-masks")
    assert "\n" not in str(caught.value)


def test_the_anchor_must_be_profiled(profiled: Profile) -> None:
    with pytest.raises(ClasError, match="anchor 'fr' was not profiled"):
        MaskSet.from_profile(profiled, anchor="fr")


def test_the_summary_adds_up(masks: MaskSet) -> None:
    info = json.loads(json.dumps(summary(masks)))
    for row in info["layers"]:
        assert row["dead"] + row["specific"] + row["partial"] + row["all"] == masks.active.shape[2]
        assert row["bridge"] == (row["layer"] in masks.bridge_layers)
    matrix = overlap(masks)
    assert np.array_equal(matrix, matrix.T)
    a, b = (masks.active_in(language)[list(masks.bridge_layers)] for language in ("hi", "zh"))
    assert matrix[masks.index("hi"), masks.index("zh")] == (a & b).sum() / (a | b).sum()
