"""Representations against one text at a time; measures against loops and invariances; picture and command."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from letters_drawn import hard_to_read, words_of
from sklearn.metrics import silhouette_score
from small_models import FAMILIES, LAYERS, Run, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.anatomy.decoder_lists import decoder_layers
from lm_eval_clas.decoder.below_head import decoder_of
from lm_eval_clas.geometry import point_picture
from lm_eval_clas.geometry.distances import (
    centroid_distance,
    cosine,
    measure_geometry,
    moved_by_steering,
    retrieval,
    silhouette,
)
from lm_eval_clas.geometry.geometry_run import run_geometry, shared_languages
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.geometry.point_picture import layers_to_draw, plot_geometry
from lm_eval_clas.geometry.representations import POOLINGS, represent
from lm_eval_clas.texts.corpora import ParallelTexts

BRIDGE = (2, 3, 4)


def points(seed: int, languages: int = 3, items: int = 7, hidden: int = 5) -> np.ndarray:
    """Items that lie near their translations, with a place of its own for each language."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(items, hidden)) + rng.normal(size=(languages, 1, hidden)) + rng.normal(size=(languages, items, hidden))
    )


# Representations


def test_representations_equal_one_text_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    found = represent(model, tokenizer, texts, batch_size=4, max_tokens=100)
    assert found["mean"].shape == (4, LAYERS + 1, 6, 32)
    assert found["mean"].dtype == np.float32
    for number, language in enumerate(texts.languages):
        for item, text in enumerate(texts.texts[language]):
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=100)["input_ids"]
            with torch.no_grad():
                # The library's own hidden states, but for the last, which it gives after the final normalisation.
                states = torch.stack(model(ids, output_hidden_states=True).hidden_states[:-1])[:, 0, 1:]
            np.testing.assert_allclose(found["mean"][number, :-1, item], states.mean(1), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["last"][number, :-1, item], states[:, -1], rtol=1e-4, atol=1e-5)


def test_the_first_position_is_left_out_where_no_special_token_stands_there(
    model: PreTrainedModel, bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    """With a sink planted at it, as trained models have one: what enters the first layer is a thousand times as large."""

    def plant(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :1] + 1000, output[:, 1:]], dim=1)

    model.get_input_embeddings().register_forward_hook(plant)
    found = represent(model, bare_tokenizer, texts, batch_size=4, max_tokens=100)
    for number, language in enumerate(texts.languages):
        for item, text in enumerate(texts.texts[language]):
            ids = bare_tokenizer(text, return_tensors="pt", truncation=True, max_length=100)["input_ids"]
            with torch.no_grad():
                states = torch.stack(model(ids, output_hidden_states=True).hidden_states[:-1])[:, 0]
            assert states[:, 0].norm(dim=-1).min() > 50 * states[:, 1:].norm(dim=-1).max()
            np.testing.assert_allclose(found["mean"][number, :-1, item], states[:, 1:].mean(1), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found["last"][number, :-1, item], states[:, -1], rtol=1e-3, atol=1e-4)
    one_token = ParallelTexts("short", ("1",), {"en": ("x",), "de": ("yz",)})
    with pytest.raises(ClasError, match="makes nothing but a first token, which does not count, of the text 'x'"):
        represent(model, bare_tokenizer, one_token)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_ends_with_what_the_final_normalisation_gets(
    family: str, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    model = make_model(family)
    short = ParallelTexts("short", texts.ids[:1], {"en": texts.texts["en"][:1], "hi": texts.texts["hi"][:1]})
    entered: list[torch.Tensor] = []
    norms = [module for module in decoder_of(model).children() if "norm" in type(module).__name__.lower()]
    norms[-1].register_forward_pre_hook(lambda module, args: entered.append(args[0][0, -1]))
    found = represent(model, tokenizer, short, max_tokens=60)
    assert found["last"].shape[1] == LAYERS + 1
    np.testing.assert_array_equal(found["last"][0, -1, 0], entered[0])
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in decoder_layers(model))


@pytest.mark.parametrize(("batch_size", "side"), [(1, "right"), (6, "right"), (5, "left")])
def test_padding_and_batches_do_not_change_representations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, batch_size: int, side: str
) -> None:
    one = represent(model, tokenizer, texts, max_tokens=120, batch_size=3)
    tokenizer.padding_side = side
    other = represent(model, tokenizer, texts, max_tokens=120, batch_size=batch_size)
    tokenizer.padding_side = "right"
    for pooling in POOLINGS:
        np.testing.assert_allclose(one[pooling], other[pooling], rtol=1e-4, atol=1e-5)


def test_alpha_0_and_the_anchor_are_unsteered_exactly_and_so_is_everything_up_to_the_bridge(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, masks: MaskSet
) -> None:
    plain = represent(model, tokenizer, texts, max_tokens=60)
    with ActivationSteerer(model, masks, alpha=0) as steerer:
        nothing = represent(model, tokenizer, texts, steerer, max_tokens=60)
    with ActivationSteerer(model, masks, alpha=-3) as steerer:
        steered = represent(model, tokenizer, texts, steerer, max_tokens=60)
    anchor = texts.languages.index(masks.anchor)
    for pooling in POOLINGS:
        assert np.array_equal(plain[pooling], nothing[pooling])
        assert np.array_equal(plain[pooling][anchor], steered[pooling][anchor])
        assert np.array_equal(plain[pooling][:, : min(BRIDGE) + 1], steered[pooling][:, : min(BRIDGE) + 1])
        others = [number for number in range(len(texts.languages)) if number != anchor]
        moved = np.abs(plain[pooling] - steered[pooling])[others, min(BRIDGE) + 1 :].max(axis=-1)
        assert moved.min() > 1e-4  # every item in every layer from the bridge's first on


def test_infinite_activations_are_told(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ClasError, match="infinite in this dtype"):
        represent(model, tokenizer, texts, max_tokens=20)


# Measures


def test_measures_equal_loops() -> None:
    own, anchor = points(0)[:2]
    cosines = [[float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for y in anchor] for x in own]
    assert cosine(own, anchor) == pytest.approx(sum(cosines[i][i] for i in range(7)) / 7)
    hits = sum(max(range(7), key=lambda j: cosines[i][j]) == i for i in range(7))
    assert retrieval(own, anchor) == pytest.approx(hits / 7)
    gap = [sum(x[k] for x in own) / 7 - sum(y[k] for y in anchor) / 7 for k in range(5)]
    unit = sum(math.sqrt(float(y @ y)) for y in anchor) / 7
    assert centroid_distance(own, anchor) == pytest.approx(math.sqrt(sum(value**2 for value in gap)) / unit)


@pytest.mark.parametrize("seed", range(3))
def test_silhouette_is_scikit_learns_and_a_slow_references(seed: int) -> None:
    found = points(seed)
    flat, labels = found.reshape(-1, 5), np.repeat(range(3), 7)
    assert silhouette(found) == pytest.approx(silhouette_score(flat, labels), abs=1e-9)
    scores = []
    for i, x in enumerate(flat):
        mean = {}
        for label in range(3):
            others = [math.dist(x, y) for j, y in enumerate(flat) if labels[j] == label and j != i]
            mean[label] = sum(others) / len(others)
        own = mean.pop(labels[i])
        nearest = min(mean.values())
        scores.append((nearest - own) / max(own, nearest))
    assert silhouette(found) == pytest.approx(sum(scores) / len(scores))


def test_measures_do_not_see_rotation_and_scale() -> None:
    found = points(1)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
    for changed in (found @ rotation, 7.5 * found, 1e-3 * found @ rotation):
        for measure in (cosine, retrieval, centroid_distance):
            assert measure(changed[0], changed[1]) == pytest.approx(measure(found[0], found[1]))
        assert silhouette(changed) == pytest.approx(silhouette(found))


def test_measures_of_extremes() -> None:
    own = points(3)[0]
    assert (cosine(own, own), retrieval(own, own), centroid_distance(own, own)) == pytest.approx((1, 1, 0))
    assert cosine(own, -own) == pytest.approx(-1)
    assert retrieval(np.eye(4), np.roll(np.eye(4), 1, axis=0)) == 0
    # All items alike, as the last tokens of prompts that end alike: a draw, and no cluster.
    alike = np.tile(own[0], (7, 1))
    assert retrieval(alike, alike) == pytest.approx(1 / 7)
    assert silhouette(np.stack([alike, alike])) == 0
    assert silhouette(np.stack([alike, alike, alike + 1])) == pytest.approx(1 / 3)  # the first two cannot be told apart
    assert silhouette(np.stack([alike, alike + 1])) == pytest.approx(1)
    nothing = np.zeros((7, 5))
    assert (cosine(nothing, own), centroid_distance(own, nothing)) == (0, 0)


def geometry_of(texts: ParallelTexts, masks: MaskSet, seed: int = 0, **options: object) -> Geometry:
    """Geometry of made-up points in which steering brings languages nearer to the anchor."""
    before = {pooling: np.stack([points(seed + layer, 4, 6) for layer in range(LAYERS + 1)], axis=1) for pooling in POOLINGS}
    after = {pooling: one.copy() for pooling, one in before.items()}
    for one in after.values():
        one[1:, 3:] = 0.5 * (one[1:, 3:] + one[:1, 3:])
    with ActivationSteerer(make_model(), masks, **{"alpha": 1, **options}) as steerer:
        return measure_geometry(before, after, texts, steerer, "small")


def test_geometry_holds_every_measure_once(texts: ParallelTexts, masks: MaskSet) -> None:
    found = geometry_of(texts, masks, layers="2-3")
    keys = {(one.measure, one.pooling, one.steered, one.layer, one.language) for one in found.measurements}
    assert len(keys) == len(found.measurements) == 2 * 2 * (LAYERS + 1) * (3 * 3 + 1)
    assert found.bridge_layers == [2, 3]
    assert found.steering["layers"] == [2, 3]
    assert found.masks_hash == masks.hash
    assert Geometry.model_validate_json(found.model_dump_json()) == found
    for name, by_language in moved_by_steering(found).items():
        assert set(by_language) == {"hi", "de", "zh"}
        sign = -1 if "distance" in name else 1
        assert all(sign * change >= 0 for change in by_language.values())
        if "distance" not in name:
            continue
        layer, pooling = (4 if "bridge" in name else LAYERS), "mean" if "mean" in name else "last"
        each = {
            (one.language, one.steered): one.value
            for one in found.measurements
            if (one.measure, one.layer, one.pooling) == ("centroid_distance", layer, pooling)
        }
        for language, change in by_language.items():
            assert change == pytest.approx(each[language, True] - each[language, False])
            assert each[language, True] == pytest.approx(each[language, False] / 2)
    assert len(moved_by_steering(found)) == 3 * 2 * 2
    assert len(moved_by_steering(geometry_of(texts, masks, layers="5"))) == 3 * 2  # the bridge ends where the model does


def test_too_little_is_refused(texts: ParallelTexts, masks: MaskSet) -> None:
    one = ParallelTexts("one", texts.ids[:1], {language: lines[:1] for language, lines in texts.texts.items()})
    with pytest.raises(ClasError, match="two items at least"):
        geometry_of(one, masks)
    with pytest.raises(ClasError, match="needs the anchor 'en'"):
        shared_languages(ParallelTexts("x", texts.ids, {"hi": texts.texts["hi"], "de": texts.texts["de"]}), masks)
    more = ParallelTexts("x", texts.ids, {"fr": texts.texts["hi"], **dict(reversed(texts.texts.items()))})
    assert shared_languages(more, masks).languages == ("en", "zh", "de", "hi")


# The picture


@pytest.mark.parametrize(("languages", "items"), [(2, 2), (12, 5), (40, 3)])
def test_the_picture_shows_every_language(languages: int, items: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    codes = ["en", *(f"l{number}" for number in range(languages - 1))]
    before = np.stack([points(layer, languages, items, 8) for layer in range(LAYERS + 1)], axis=1).astype(np.float32)
    path = plot_geometry(before, before + 1, codes, "en", BRIDGE, tmp_path / "a.svg", "small, 2 items")
    picture = path.read_text(encoding="utf-8")
    for text in (*codes, "not steered", "steered", "small, 2 items", "the bridge begins", "the bridge ends", "the last"):
        assert f">{text}<" in picture


@pytest.mark.parametrize("width", [None, 3.25])
def test_fifteen_languages_can_be_read_as_they_are_printed(
    width: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(point_picture, "save", lambda figure, path: kept.append(figure) or path)
    codes = ["en", *(f"l{number}" for number in range(14))]
    before = np.stack([points(layer, 15, 3, 8) for layer in range(LAYERS + 1)], axis=1).astype(np.float32)
    title = "a model with a rather long name, a corpus: 100 items in 15 languages, mean of tokens\nclas, alpha 1, layers 2-4"
    plot_geometry(before, before + 1, codes, "en", BRIDGE, tmp_path / "a.png", title, width)
    (figure,) = kept
    assert figure.get_figwidth() == (width or 6.3)
    assert not [told for told in hard_to_read(figure) if "meet" not in told]
    words = [one.get_text() for one in words_of(figure)]
    assert all(words.count(code) == len(figure.axes) for code in codes[1:])
    assert any("rather long name" in one for one in words) == (width is None)  # in a column the caption says it


def test_layers_to_draw() -> None:
    assert layers_to_draw((13, 14, 15), 18) == [13, 16, 17, 18]
    assert layers_to_draw((24, 25, 26, 27, 28, 29), 32) == [24, 30, 31, 32]
    assert layers_to_draw((5,), 6) == [5, 6]


# The run


def test_run_geometry_writes_all_three(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, masks: MaskSet, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    found = run_geometry(
        model, tokenizer, texts, masks, tmp_path, alpha=-2, max_tokens=60, name="small", report=lambda *one: told.append(one)
    )
    assert Geometry.model_validate_json((tmp_path / "geometry.json").read_bytes()) == found
    with (tmp_path / "geometry.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.measurements)
    assert float(rows[5]["value"]) == pytest.approx(found.measurements[5].value)
    assert (tmp_path / "geometry.png").read_bytes().startswith(b"\x89PNG")
    assert [done for language, done, _ in told if language == "hi"] == [6, 12]
    assert {total for _, _, total in told} == {12}
    value = {(one.measure, one.pooling, one.layer, one.language, one.steered): one.value for one in found.measurements}
    for (*where, steered), measured in value.items():
        if steered and where[2] <= min(BRIDGE):
            assert measured == value[(*where, False)]
    assert any(value[(*where, False)] != measured for (*where, _), measured in value.items())


def test_geometry_on_the_command_line(
    clas: Run,
    checkpoint: Path,
    tokenizer: PreTrainedTokenizerFast,
    masks: MaskSet,
    tmp_path: Path,
) -> None:
    folder = masks.save(tmp_path / "masks")
    base = ("geometry", "--model", checkpoint, "--masks", folder, "--corpus", "mini", "--samples", 3, "--device", "cpu")
    code, text, error = clas(
        *base, "--alpha", -2, "--out", tmp_path / "out", "--languages", "en,hi,fr", "--max-tokens", 60, "--model-name", "small",
        "--plot", tmp_path / "points.pdf", "--width", 3.25,
    )  # fmt: skip
    assert code == 0, error
    box = re.search(rb"/MediaBox \[ 0 0 (\d+)", (tmp_path / "points.pdf").read_bytes())
    assert box is not None
    assert int(box[1]) == 72 * 3.25  # points
    assert "Left out, as the masks do not have them: fr" in error
    assert "silhouette" in text
    found = Geometry.model_validate_json((tmp_path / "out" / "geometry.json").read_bytes())
    assert (found.model, found.languages, found.items, found.steering["alpha"]) == ("small", ["en", "hi"], 3, -2.0)
    for options, message in [
        (("--alpha", "much"), "alpha must be a number"),
        (("--languages", "hi,de"), "needs the anchor 'en'"),
        (("--layers", "9"), "out of range"),
        (("--width", 1), "cannot be 1 inches wide"),
    ]:
        code, _, error = clas(*base, "--out", tmp_path / "x", *options)
        assert (code, message in error) == (2, True), error
    assert not (tmp_path / "x").exists()


def test_other_families_can_be_measured(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path) -> None:
    model = make_model("gemma3_text")
    found = profile(model, tokenizer, texts, max_tokens=40)
    masks = MaskSet.from_profile(found, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    assert run_geometry(model, tokenizer, texts, masks, tmp_path, alpha=1, max_tokens=40).languages == list(texts.languages)
