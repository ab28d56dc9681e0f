"""LAPE against a slow loop over neurons; published lists of neurons read back; and both as masks that steer."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixtures_made import mixture_profile
from slow_lape import slow
from small_models import LAYERS, NEURONS, Run, make_model

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.lape import LapeSelector, entropy, read_neuron_file, with_lape, with_neuron_file
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions


def mask(lists: list[list[list[int]]], neurons: int) -> np.ndarray:
    result = np.zeros((len(lists), len(lists[0]), neurons), bool)
    for language, by_layer in enumerate(lists):
        for layer, numbers in enumerate(by_layer):
            result[language, layer, numbers] = True
    return result


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("top", "percentile"), [(0.01, 0.95), (0.05, 0.9), (0.5, 0.6), (1.0, 0.5)])
def test_selection_equals_a_slow_loop(seed: int, top: float, percentile: float) -> None:
    generator = np.random.default_rng(seed)
    tokens = int(generator.integers(50, 2000))
    shape = (int(generator.integers(2, 8)), 5, 120)
    # Mostly rare neurons, some frequent ones, some dead in all languages, and shares of a whole number of tokens.
    rate = generator.beta(0.3, 2.0, shape) * (generator.random(shape[1:]) > 0.1)
    probabilities = generator.binomial(tokens, rate) / tokens
    selection = LapeSelector(top, percentile).select(probabilities)
    assert np.array_equal(selection.owned, mask(slow(probabilities, top, percentile), shape[2]))
    assert selection.bar in probabilities
    assert np.array_equal(LapeSelector(top, percentile).select(probabilities.astype(np.float32)).owned, selection.owned)


def test_entropy_is_none_for_one_language_and_most_for_all() -> None:
    probabilities = np.array([[[0.5, 0.2, 0.0, 0.6]], [[0.0, 0.2, 0.0, 0.2]]])
    expected = [[0, math.log(2), 0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]]
    np.testing.assert_allclose(entropy(probabilities), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"top": 0.0}, "--lape-top must be a share"),
        ({"top": float("nan")}, "--lape-top must be a share"),
        ({"percentile": 1.0}, "--lape-percentile must be a share"),
        ({"top": 0.0001}, "keeps none of 48 neurons"),
    ],
)
def test_thresholds_are_checked(selector: dict[str, float], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        LapeSelector(**selector).select(np.random.default_rng(0).random((2, 1, 48)))


def test_neurons_that_are_all_alike_give_none() -> None:
    with pytest.raises(ClasError, match="finds no language-specific neuron"):
        LapeSelector().select(np.full((3, 2, 48), 0.5))


@pytest.fixture(scope="module")
def lape(masks: MaskSet, profiled: Profile) -> MaskSet:
    """The small Llama's masks with LAPE's neurons, more of them than by default, as it is small."""
    return with_lape(masks, profiled, LapeSelector(0.3, 0.7))


def test_masks_are_lapes_and_of_the_profile(lape: MaskSet, masks: MaskSet, profiled: Profile) -> None:
    expected = slow(profiled.mean("share-positive", "all"), 0.3, 0.7)
    for number, language in enumerate(lape.languages):
        for layer in range(LAYERS):
            assert list(np.flatnonzero(lape.specific_in(language)[layer])) == sorted(expected[number][layer])
    assert np.array_equal(lape.active, masks.active)
    assert np.array_equal(lape.categories, masks.categories)
    assert lape.hash != masks.hash


def test_the_folder_keeps_the_source(lape: MaskSet, masks: MaskSet, tmp_path: Path) -> None:
    again = MaskSet.load(lape.save(tmp_path / "lape"))
    assert again.owned is not None
    assert np.array_equal(again.owned, lape.owned)
    assert (again.hash, again.config.specific) == (lape.hash, lape.config.specific)
    assert summary(again)["specific"]["source"] == "lape"
    masks.save(tmp_path / "lape")  # the same place, by counts
    assert MaskSet.load(tmp_path / "lape").owned is None
    assert MaskSet.load(tmp_path / "lape").hash == masks.hash


def test_folders_from_before_load_with_their_hash(tmp_path: Path) -> None:
    config = json.loads((shipped("masks") / "gemma-3-270m" / "clas_config.json").read_bytes())
    assert "specific" not in config
    assert MaskSet.load("gemma-3-270m").hash == "de160fba7f6eecf4"
    again = MaskSet.load(MaskSet.load("gemma-3-270m").save(tmp_path / "again"))
    assert (again.hash, again.config.specific.source) == ("de160fba7f6eecf4", "counts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "guess"}, "is damaged: specific.source"),
        ({"source": "lape"}, "is damaged: specific: .*lape needs top"),
        ({"source": "lape", "top": 0.01, "percentile": 0.95, "bar": 0.3}, "must hold 'specific' as uint8"),
    ],
)
def test_a_damaged_source_is_refused(masks: MaskSet, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = masks.save(tmp_path / "masks") / "clas_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "specific": change}))
    with pytest.raises(ClasError, match=message):
        MaskSet.load(tmp_path / "masks")


@pytest.mark.parametrize("scope", ["all", "own"])
def test_specific_wins_over_partial(lape: MaskSet, scope: str) -> None:
    """Masks stay disjoint: a neuron is damped or amplified, and one that is specific to anything is not amplified."""
    steerer = ActivationSteerer(make_model(), lape, alpha=1.0, beta=0.5, gamma=0.25, specific_scope=scope)
    seen = set()
    for layer in lape.bridge_layers:
        for neuron in range(NEURONS):
            owners = [one for one in lape.languages if lape.specific_in(one)[layer, neuron]]
            languages = int(lape.active[:, layer, neuron].sum())
            if "hi" in owners or (owners and scope == "all"):
                expected = 1 - 0.25
            elif 2 <= languages < len(lape.languages) and not owners:
                expected = 1 + 0.5
            else:
                expected = 1.0
            seen.add((expected, 2 <= languages < len(lape.languages)))
            assert float(steerer.factors("hi")[layer, neuron]) == expected
    assert (0.75, True) in seen  # both partial-shared by counts and specific by LAPE
    assert (1.5, True) in seen


def test_int_mu_overwrites_lapes_neurons(profiled: Profile) -> None:
    kept = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4", keep_means=True)
    made = with_lape(kept, profiled, LapeSelector(0.3, 0.7))
    steerer = ActivationSteerer(make_model(), made, method="int-mu")
    own = made.specific_in("zh")[2:5]
    assert own.any()
    assert np.array_equal((steerer.factors("zh") == 0).numpy()[2:5], own)
    assert made.means is not None
    assert np.array_equal(steerer.shifts("zh").numpy()[2:5], np.where(own, made.means[made.index("zh"), 2:5], 0))


def save(path: Path, owned: np.ndarray) -> Path:
    """As the authors' script writes it."""
    torch.save([[torch.from_numpy(np.flatnonzero(row)).long() for row in by_layer] for by_layer in owned], path)
    return path


def test_a_published_file_reads_back(lape: MaskSet, masks: MaskSet, tmp_path: Path) -> None:
    assert lape.owned is not None
    path = save(tmp_path / "LLaMA.neuron.pth", lape.owned)
    assert np.array_equal(read_neuron_file(path, 4, [NEURONS] * LAYERS), lape.owned)
    made = with_neuron_file(masks, path, lape.languages)
    assert made.owned is not None
    assert np.array_equal(made.owned, lape.owned)
    assert made.hash == lape.hash
    assert (made.config.specific.source, made.config.specific.file) == ("file", "LLaMA.neuron.pth")
    again = MaskSet.load(made.save(tmp_path / "masks"))
    assert again.hash == made.hash


def test_languages_of_the_file_are_matched_by_name(lape: MaskSet, masks: MaskSet, tmp_path: Path) -> None:
    assert lape.owned is not None
    path = save(tmp_path / "some.neuron.pth", lape.owned[[3, 1, 0]])
    made = with_neuron_file(masks, path, ["zho_Hans", "fr", "en"])
    assert np.array_equal(made.specific_in("zh"), lape.specific_in("zh"))
    assert np.array_equal(made.specific_in("en"), lape.specific_in("en"))
    assert not made.specific_in("hi").any()


@pytest.mark.parametrize("method", ["clas", "int-mu", "random"])
def test_a_published_list_does_not_steer_what_was_not_measured(method: str, tmp_path: Path) -> None:
    """On a mixture of experts, of which too few tokens reached some: their neurons stay as they are."""
    made = MaskSet.from_profile(mixture_profile(), categorizer=NeuronCategorizer(threshold=0.0), bridge="1-3", keep_means=True)
    exists, measured = made.config.model.fingerprint.exists, made.measured
    assert exists is not None
    assert measured is not None
    unmeasured = exists & ~measured
    assert unmeasured[1:].any()
    path = save(tmp_path / "mixture.neuron.pth", np.stack([exists] * 3))
    listed = with_neuron_file(made, path, made.languages)
    assert np.array_equal(listed.specific_in("hi"), measured)
    assert not (listed.specific & unmeasured).any()
    steering = SteeringOptions.parse(listed, alpha=1.0, gamma=0.25, method=method)
    assert (intervention_in(listed, steering, "hi").factors[unmeasured] == 1).all()
    shifts = intervention_in(listed, steering, "hi").shifts
    assert shifts is None or not shifts[unmeasured].any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [(0, "language 1, layer 0: names neurons outside 0-2"), (1, "language 1, layer 1: names neurons, and this layer .* none")],
)
def test_numbers_past_the_end_of_a_narrow_layer_are_refused(layer: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "some.neuron.pth"
    lists = [[long(0, 2), long(), long(4)] for _ in range(2)]
    torch.save(lists, path)
    assert read_neuron_file(path, 2, [3, 0, 5]).sum() == 6
    lists[1][layer] = long(3)
    torch.save(lists, path)
    with pytest.raises(ClasError, match=message):
        read_neuron_file(path, 2, [3, 0, 5])


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_pickle_is_refused_and_not_run(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "evil.neuron.pth"
    write([[Malicious(tmp_path / "was-run")]], path)
    with pytest.raises(ClasError, match=r"holds more than lists of tensors|must be a file of torch.save") as caught:
        read_neuron_file(path, 1, [48])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-run").exists()


def long(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"en": 1}, "must be a file of torch.save with a list"),
        ([], "lists for 0 languages, but --specific-languages names 2"),
        ([[long(), long()]], "lists for 1 languages, but --specific-languages names 2"),
        ([[long(), long()], [long()]], "language 1: has 1 layers, and the model has 2"),
        ([[long(), long()], long(1, 2)], "language 1: has no list of layers"),
        ([[long(), [1, 2]], [long(), long()]], "language 0, layer 1: must be a one-dimensional tensor"),
        ([[long(), torch.ones(3)], [long(), long()]], "language 0, layer 1: must be a one-dimensional tensor"),
        ([[long(), long(1)[None]], [long(), long()]], "language 0, layer 1: must be a one-dimensional tensor"),
        ([[long(), long(1).to_sparse()], [long(), long()]], "language 0, layer 1: must be a one-dimensional tensor"),
        ([[long(), long(48)], [long(), long()]], "names neurons outside 0-47"),
        ([[long(), long(-1)], [long(), long()]], "names neurons outside 0-47"),
        ([[long(), long(3, 3)], [long(), long()]], "names a neuron twice"),
        ([[long(), long(0).expand(10**9)], [long(), long()]], "names a neuron twice"),
    ],
)
def test_files_that_do_not_fit_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "some.neuron.pth"
    torch.save(content, path)
    with pytest.raises(ClasError, match=message):
        read_neuron_file(path, 2, [48, 48])


def test_damaged_and_missing_files_are_refused(lape: MaskSet, masks: MaskSet, tmp_path: Path) -> None:
    assert lape.owned is not None
    path = save(tmp_path / "some.neuron.pth", lape.owned)
    for languages in ([], ["en", "hi", "de", "de"], ["en", "hi", "de", "klingonish!"]):
        with pytest.raises(ClasError, match="--specific-languages must name the language of each list"):
            with_neuron_file(masks, path, languages)
    with pytest.raises(ClasError, match="none of which is among the masks' en, hi, de, zh"):
        with_neuron_file(masks, path, ["fr", "es", "vi", "id"])
    content = path.read_bytes()
    for cut in (content[: len(content) // 2], content[:-30], b"", content[:900] + b"\0" * 64 + content[964:]):
        path.write_bytes(cut)
        with pytest.raises(ClasError):
            read_neuron_file(path, 4, [NEURONS] * LAYERS)
    with pytest.raises(ClasError, match="There is no file"):
        with_neuron_file(masks, tmp_path / "nothing", masks.languages)


def test_from_the_command_line(clas: Run, profile_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    code, text, error = clas(
        "masks", profile_folder, "--out", out, "--bridge", "2-4", "--specific", "lape", "--lape-top", "0.2",
        "--lape-percentile", "0.8",
    )  # fmt: skip
    assert code == 0, error
    made = MaskSet.load(out)
    assert made.owned is not None
    assert (made.config.specific.top, made.config.specific.percentile) == (0.2, 0.8)
    assert "lape, top 0.2, percentile 0.8; in the bridge en" in text
    path = save(tmp_path / "x.neuron.pth", made.owned)
    shutil.rmtree(out)
    code, text, error = clas(
        "masks", profile_folder, "--out", out, "--bridge", "2-4", "--specific", path, "--specific-languages", "en,hi,de"
    )
    assert code == 0, error
    assert MaskSet.load(out).hash == made.hash
    for options, message in [
        (("--lape-top", "0.2"), "--lape-top needs --specific lape"),
        (("--specific-languages", "en"), "--specific-languages needs --specific FILE.neuron.pth"),
        (("--specific", "lap"), "There is no file 'lap'; --specific takes counts, lape"),
        (("--specific", path), "--specific-languages must name"),
    ]:
        code, _, error = clas("masks", profile_folder, "--out", tmp_path / "other", "--bridge", "2-4", *options)
        assert code == 2
        assert message in error.replace("\n", " ")
    assert not (tmp_path / "other").exists()
