"""Correlations over languages: against scipy and every permutation, and what is told where nothing can be."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.correlation import Correlation, correlate, correlate_all, smallest_telling
from lm_eval_clas.geometry.causes import divergence
from lm_eval_clas.geometry.measurements import Geometry, Measurement

RNG = np.random.default_rng(5)
X = RNG.normal(size=12)
Y = X + RNG.normal(size=12)


def test_both_correlations_are_scipys() -> None:
    found = correlate(X, Y, "cause", "gain")
    assert found.pearson == pytest.approx(stats.pearsonr(X, Y)[0])
    assert found.spearman == pytest.approx(stats.spearmanr(X, Y)[0])
    assert found.pearson_p == pytest.approx(stats.pearsonr(X, Y)[1], abs=0.02)
    assert (found.cause, found.effect, found.n) == ("cause", "gain", 12)
    tied = np.round(X)
    assert correlate(tied, Y, "c", "e").spearman == pytest.approx(stats.spearmanr(tied, Y)[0])
    assert correlate(X, Y, "c", "e", seed=3) == correlate(X, Y, "c", "e", seed=3)


def test_few_pairs_are_permuted_in_every_way() -> None:
    x, y = X[:5], Y[:5]
    found = correlate(x, y, "c", "e")
    for name, (one, other) in {"pearson": (x, y), "spearman": (stats.rankdata(x), stats.rankdata(y))}.items():
        r = np.corrcoef(one, other)[0, 1]
        every = [np.corrcoef(order, other)[0, 1] for order in permutations(one)]
        above, below = (np.mean([sign * (value - r) >= -1e-9 for value in every]) for sign in (1, -1))
        assert getattr(found, name) == pytest.approx(r)
        assert getattr(found, f"{name}_p") == pytest.approx(min(1, 2 * min(above, below)))


def test_the_interval_is_the_bootstraps() -> None:
    found = correlate(X, Y, "c", "e", resamples=20000)
    rng = np.random.default_rng(99)
    for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        drawn = [correlation(X[rows], Y[rows])[0] for rows in rng.integers(12, size=(2000, 12))]
        low, high = np.quantile(drawn, (0.025, 0.975))
        assert getattr(found, f"{name}_low") == pytest.approx(low, abs=0.06)
        assert getattr(found, f"{name}_high") == pytest.approx(high, abs=0.03)


def test_correlations_do_not_see_the_units() -> None:
    one, other = correlate(X, Y, "c", "e"), correlate(3 * X - 40, 0.01 * Y, "c", "e")
    for name, value in one.model_dump().items():
        if isinstance(value, float):
            assert getattr(other, name) == pytest.approx(value, abs=1e-9)
    against = correlate(-X, Y, "c", "e")
    assert (against.pearson, against.spearman) == pytest.approx((-one.pearson, -one.spearman))
    assert correlate(X, np.exp(X), "c", "e").spearman == pytest.approx(1)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_two_languages_tell_nothing(n: int) -> None:
    found = correlate(X[:n], Y[:n], "c", "e")
    assert found.pearson is found.spearman is found.spearman_p is None
    assert "no correlation can be told" in "".join(found.warnings)


def test_no_spread_is_told() -> None:
    assert "c is the same in all 12" in "".join(correlate(np.full(12, 0.1 + 0.2), Y, "c", "e").warnings)
    assert "e is the same in all 12" in "".join(correlate(X, np.zeros(12), "c", "e").warnings)


def test_what_languages_can_tell() -> None:
    # Tables of critical values of r, two-sided, 5 %.
    for n, critical in {3: 0.997, 5: 0.878, 11: 0.602, 15: 0.514, 16: 0.497, 40: 0.312}.items():
        assert smallest_telling(n) == pytest.approx(critical, abs=5e-4)
    assert "of 12, only |r| of 0.576 or more" in "".join(correlate(X, Y, "c", "e").warnings)
    rng = np.random.default_rng(1)
    assert correlate(rng.normal(size=16), rng.normal(size=16), "c", "e").warnings == []
    three = correlate(X[:3], Y[:3], "c", "e")
    assert three.pearson is not None
    assert "|r| of 0.997" in "".join(three.warnings)
    with pytest.raises(ClasError, match="2 pairs"):
        smallest_telling(2)


def test_unrelated_numbers_seldom_look_related() -> None:
    rng = np.random.default_rng(0)
    found = [correlate(rng.normal(size=8), rng.standard_t(2, size=8), "c", "e", resamples=50) for _ in range(100)]
    for name in ("pearson_p", "spearman_p"):
        assert np.mean([getattr(one, name) <= 0.05 for one in found]) <= 0.11


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [float("nan")] * 12, [float("inf"), *range(11)]])
def test_wrong_numbers_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ClasError, match="correlation of 'c' with 'e'"):
        correlate(wrong, Y, "c", "e")


def test_all_causes_over_the_languages_that_have_both() -> None:
    gains = {"de": 1.0, "hi": 2.0, "zh": 4.0, "ru": 3.0}
    found = correlate_all({"a": {"de": 1, "hi": 2, "zh": 4, "fr": 9}, "b": {"de": 1}}, gains)
    assert [(one.cause, one.n, one.effect) for one in found] == [("a", 3, "gain"), ("b", 1, "gain")]
    assert found[0].pearson == pytest.approx(1)


def test_divergence_correlates_the_change_at_the_bridge_and_at_the_end() -> None:
    gains = {"de": -1.0, "hi": 0.5, "zh": 2.0, "ru": 0.0, "en": 0.0}
    measurements = [
        Measurement(
            measure=measure, pooling=pooling, steered=steered, layer=layer, language=language,
            value=layer + ord(language[0]) + (0.01 * gains[language] * (1 if layer == 5 else -2) if steered else 0),
        )
        for measure in ("cosine", "retrieval", "centroid_distance")
        for pooling in ("mean", "last")
        for steered in (False, True)
        for layer in range(7)
        for language in ("de", "hi", "zh", "ru")
    ]  # fmt: skip
    measurements.append(Measurement(measure="silhouette", pooling="mean", steered=True, layer=5, language=None, value=1))
    geometry = Geometry(
        model="m", masks_hash="h", corpus="c", corpus_sha256="s", items=3, anchor="en",
        languages=["en", "de", "hi", "zh", "ru"], bridge_layers=[3, 4], steering={}, measurements=measurements,
    )  # fmt: skip
    found = divergence(geometry, gains)
    assert len(found) == 12
    for one in found:
        assert one.n == 4
        assert one.pearson == pytest.approx(1 if "after the bridge" in one.cause else -1)


def test_one_text_of_warnings_in_a_file_of_before_becomes_its_sentences() -> None:
    old = {"cause": "c", "effect": "e", "n": 3, "warning": "Biased down, at 5 % or so. Few languages: of 3."}
    assert Correlation.model_validate(old).warnings == ["Biased down, at 5 % or so.", "Few languages: of 3."]
    assert Correlation.model_validate(old | {"warning": None}).warnings == []
    for wrong in ({"warning": 3}, {"warnings": []}):
        with pytest.raises(ValidationError):
            Correlation.model_validate(old | wrong)
