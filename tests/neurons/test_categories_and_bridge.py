"""Categories and bridge layers: against a loop, against hand-made pictures, and fast enough at full size."""

from __future__ import annotations

import time

import numpy as np
import pytest
from mixtures_made import mixture_profile

from lm_eval_clas import ClasError, NeuronCategorizer, Profile, categorize, select_bridge_layers
from lm_eval_clas.neurons.bridge import layers_text, parse_layers
from lm_eval_clas.neurons.categories import NO_NEURON, UNMEASURED, category_shares


def test_categories_equal_a_loop() -> None:
    active = np.random.default_rng(0).random((5, 3, 40)) < 0.5
    got = categorize(active)
    for layer in range(3):
        for neuron in range(40):
            languages = int(active[:, layer, neuron].sum())
            assert got[layer, neuron] == {0: 0, 1: 1, 5: 3}.get(languages, 2)
    np.testing.assert_allclose(category_shares(got).sum(axis=1), 1)
    assert got.dtype == np.uint8


def test_two_languages_have_no_partial_neurons() -> None:
    active = np.array([[[True, True, False, False]], [[True, False, True, False]]])
    assert categorize(active).tolist() == [[3, 1, 1, 0]]
    with pytest.raises(ClasError, match="at least two"):
        categorize(active[:1])


def test_many_languages_do_not_overflow() -> None:
    active = np.zeros((300, 1, 3), dtype=bool)
    active[:256, 0, 1] = True
    active[:, 0, 2] = True
    assert categorize(active).tolist() == [[0, 2, 3]]


def test_llama_size_is_categorised_in_well_under_a_second() -> None:
    """A guard against a loop over neurons, with ten times the room; the figure itself is for benchmarks."""
    active = np.random.default_rng(0).random((15, 32, 14336)) < 0.5
    started = time.perf_counter()
    select_bridge_layers(categorize(active))
    assert time.perf_counter() - started < 10


def test_the_statistic_decides(profiled: Profile) -> None:
    assert (NeuronCategorizer("mean-abs").active(profiled) == (profiled.mean("mean-abs", "all") > 0)).all()
    half = NeuronCategorizer("share-positive", "last", 0.5).active(profiled)
    assert (half == (profiled.mean("share-positive", "last") > 0.5)).all()
    for bad in ({"statistic": "median"}, {"tokens": "first"}, {"threshold": float("nan")}):
        with pytest.raises(ClasError, match=next(iter(bad))):
            NeuronCategorizer(**bad)  # type: ignore[arg-type]


def picture(partial: list[float], dead: list[float], neurons: int = 1000) -> np.ndarray:
    """Categories [layers, neurons] with given shares of partial-shared and dead neurons, the rest all-shared."""
    categories = np.full((len(partial), neurons), 3, dtype=np.uint8)
    for layer, (p, d) in enumerate(zip(partial, dead, strict=True)):
        categories[layer, : round(p * neurons)] = 2
        categories[layer, neurons - round(d * neurons) :] = 0
    return categories


def test_the_rule_takes_the_run_around_the_best_late_layer() -> None:
    #                          0    1    2    3    4    5    6    7    8    9
    categories = picture([0.9, 0.8, 0.3, 0.3, 0.3, 0.5, 0.74, 0.80, 0.9, 0.9], [0] * 10)
    assert select_bridge_layers(categories).layers == (6, 7)  # 8 and 9 are the last two
    assert select_bridge_layers(categories, exclude_last=0).layers == (8, 9)
    assert select_bridge_layers(categories, exclude_last=1).layers == (8,)
    dead = [0, 0, 0, 0, 0, 0, 0.1, 0, 0, 0]  # 0.64 is below 90 % of 0.80
    assert select_bridge_layers(picture([0.9, 0.8, 0.3, 0.3, 0.3, 0.5, 0.74, 0.80, 0.9, 0.9], dead)).layers == (7,)


def test_the_run_is_contiguous_and_starts_at_half_depth() -> None:
    categories = picture([0.8] * 4 + [0.8, 0.8, 0.2, 0.79, 0.8, 0.8], [0] * 10)
    assert select_bridge_layers(categories).layers == (5,)


def test_a_given_range_always_wins() -> None:
    categories = picture([0.5] * 10, [0] * 10)
    choice = select_bridge_layers(categories, "0-1")
    assert choice.layers == (0, 1)
    assert choice.why == "given by the user"
    assert select_bridge_layers(categories, [9, 2]).layers == (2, 9)


def test_where_no_layer_qualifies_the_rule_says_so() -> None:
    with pytest.raises(ClasError, match="No bridge layer"):
        select_bridge_layers(picture([0.2] * 10, [0.5] * 10))
    with pytest.raises(ClasError, match="leaves no late layer"):
        select_bridge_layers(picture([0.5] * 4, [0] * 4))


def test_a_layer_of_which_little_was_measured_is_no_bridge_layer() -> None:
    """One measured expert of many says little of its layer, and does not compete with whole ones."""
    categories = picture([0.5] * 4 + [0.8, 0.8, 0.8, 0.8, 0.5, 0.5], [0] * 10)
    assert select_bridge_layers(categories).layers == (5, 6, 7)
    categories[6, 10:] = UNMEASURED  # what was measured is all partial-shared
    assert category_shares(categories)[6, 2] == 1
    choice = select_bridge_layers(categories)
    assert choice.layers == (5, 7)
    assert choice.why.endswith("without 6, where less than 50% of the neurons were measured")
    categories[6, 10:500] = 3
    assert 6 not in select_bridge_layers(categories, exclude_last=0).layers
    assert "measured" not in select_bridge_layers(categories).why
    categories[:, 400:] = UNMEASURED
    with pytest.raises(
        ClasError, match="No bridge layer: in each of the layers 5-7, less than 50% of the neurons were measured"
    ):
        select_bridge_layers(categories)


def test_what_no_layer_has_is_not_unmeasured() -> None:
    """A narrow layer is whole: places past its end are no neurons that were not measured."""
    categories = picture([0.5] * 10, [0] * 10)
    categories[7, :900], categories[7, 900:] = NO_NEURON, 2
    assert select_bridge_layers(categories).layers == (7,)


@pytest.mark.parametrize("layers", [4, "4", "4-5", [3, 4], (5,)])
def test_layers_without_neurons_are_refused(layers: object) -> None:
    with pytest.raises(ClasError, match=r"layers? (4|5|4-5) of this model ha(s|ve) no neurons at the site"):
        parse_layers(layers, 10, empty=(4, 5))  # type: ignore[arg-type]
    categories = picture([0.5] * 10, [0] * 10)
    categories[4:6] = NO_NEURON
    with pytest.raises(ClasError, match="no neurons at the site"):
        select_bridge_layers(categories, layers)  # type: ignore[arg-type]


def test_a_range_over_layers_without_neurons_is_of_the_others() -> None:
    assert parse_layers("3-6", 10, empty=(4, 5)) == (3, 6)


def test_the_languages_compared_decide_what_was_measured() -> None:
    profiled = mixture_profile()
    seen = profiled.by_language["de"].routed["all"]
    seen[:] = 0  # no token of it reached any expert
    categorizer = NeuronCategorizer()
    two, three = categorizer.categories(profiled, ["en", "hi"]), categorizer.categories(profiled)
    few = np.minimum(profiled.by_language["en"].routed["all"], profiled.by_language["hi"].routed["all"]) < 100
    layout = profiled.config.fingerprint.layout
    assert layout is not None
    assert np.array_equal(two == UNMEASURED, layout.spread(few))
    assert np.array_equal(three == UNMEASURED, layout.exists)
    active = categorizer.active(profiled, ["en", "hi"])
    assert np.array_equal(active, (profiled.mean("signed-mean", "all")[:2] > 0) & (two <= 3))
    assert active.any()


@pytest.mark.parametrize("layers", ["24-29", "-1", "3-", "a", [1.5, "x"], 99, [], "5-2", "0-99999999999999"])
def test_bad_layers_are_refused(layers: object) -> None:
    with pytest.raises(ClasError, match="layers"):
        parse_layers(layers, 20)  # type: ignore[arg-type]


def test_layers_are_read_in_every_form() -> None:
    assert parse_layers("3-5", 20) == parse_layers([5, 4, 3, 3], 20) == (3, 4, 5)
    assert parse_layers(7, 20) == parse_layers("7", 20) == (7,)


@pytest.mark.parametrize(
    ("layers", "text"), [((), ""), ((7,), "7"), ((7, 8), "7-8"), ((3, 4, 5), "3-5"), ((3, 5), "3, 5"), ((3, 4, 6), "3, 4, 6")]
)
def test_layers_are_told_as_they_are_given(layers: tuple[int, ...], text: str) -> None:
    assert layers_text(layers) == layers_text(list(layers)) == text
    if layers and "," not in text:
        assert parse_layers(text, 20) == layers
