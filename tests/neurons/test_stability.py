"""Two profiles compared: what identity and chance give, slow references, halves, and the command."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, jaccard_score
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, NeuronCategorizer, ParallelInputBuilder, Profile, profile
from lm_eval_clas.evidence.overlap_by_chance import jaccard, jaccard_by_chance, kappa
from lm_eval_clas.neurons.agreement import Stability
from lm_eval_clas.neurons.stability import agreements, compare_profiles


def test_a_profile_agrees_with_itself(profiled: Profile) -> None:
    found = compare_profiles(profiled, profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    assert found.bridge_a == found.bridge_b == [2, 3, 4]
    assert found.ceiling == []
    assert len(found.agreements) == (1 + 6) * 5
    for one in found.agreements:
        assert one.jaccard in (1, None)
        assert one.kappa is None or one.kappa == pytest.approx(1)
    assert all(one.jaccard == 1 for one in found.agreements if one.layer is None and one.category != "any")
    assert Stability.model_validate_json(found.model_dump_json()) == found


def test_independent_categories_agree_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.choice(4, p=(0.1, 0.2, 0.4, 0.3), size=(3, 20000)).astype(np.uint8) for _ in range(2))
    for one in agreements(a, b, [1, 2]):
        assert one.kappa == pytest.approx(0, abs=0.025)
        if one.category != "any":
            assert one.jaccard == pytest.approx(one.jaccard_chance, abs=0.012)


def test_agreements_equal_slow_references() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(4, size=(2, 50)).astype(np.uint8)
    b = np.where(rng.random((2, 50)) < 0.5, a, rng.integers(4, size=(2, 50))).astype(np.uint8)
    for one in agreements(a, b, [0, 1]):
        x, y = (side.ravel() if one.layer is None else side[one.layer] for side in (a, b))
        labels = range(4)
        if one.category != "any":
            which = ("dead", "specific", "partial", "all").index(one.category)
            x, y, labels = x == which, y == which, (False, True)
            assert one.jaccard == pytest.approx(jaccard_score(x, y))
        agree = sum(i == j for i, j in zip(x, y, strict=True)) / len(x)
        chance = sum(sum(x == label) * sum(y == label) for label in labels) / len(x) ** 2
        assert one.kappa == pytest.approx((agree - chance) / (1 - chance))
        assert one.kappa == pytest.approx(cohen_kappa_score(x, y))


@pytest.mark.parametrize(("a", "b"), [(2, 3), (4, 4), (0, 2), (6, 3), (6, 6)])
def test_chance_is_the_mean_over_all_sets(a: int, b: int) -> None:
    first = set(range(a))
    each = [len(first & set(other)) / len(first | set(other)) for other in combinations(range(6), b)]
    assert jaccard_by_chance(a, b, 6) == pytest.approx(sum(each) / len(each))


def test_what_is_not_defined_is_none() -> None:
    nothing, everything = np.zeros(5, bool), np.ones(5, bool)
    assert jaccard(nothing, nothing) is None
    assert jaccard_by_chance(0, 0, 5) is None
    assert kappa(everything, everything) is None
    assert (jaccard(everything, everything), jaccard(nothing, everything), kappa(nothing, everything)) == (1, 0, 0)
    # Of many neurons, chance is the ratio of what is expected.
    both = 80_000 * 60_000 / 86_016
    assert jaccard_by_chance(80_000, 60_000, 86_016) == pytest.approx(both / (140_000 - both), abs=1e-5)


def test_only_common_languages_count(profiled: Profile, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ParallelInputBuilder("mini", ["fr", "de", "en", "hi"], 6).build()
    other = profile(make_model(), tokenizer, texts, name="small-llama", max_tokens=200)
    found = compare_profiles(profiled, other, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    assert found.languages == ["en", "hi", "de"]
    # The same texts in these languages, though in another order.
    assert all(one.kappa in (None, 1) or one.kappa == pytest.approx(1) for one in found.agreements)
    fewer = dataclasses.replace(other, by_language={"fr": other.by_language["fr"], "en": other.by_language["en"]})
    with pytest.raises(ClasError, match="1 languages in common"):
        compare_profiles(profiled, fewer)
    with pytest.raises(ClasError, match="lacks hi, de"):
        compare_profiles(profiled, other, (fewer, fewer))


def test_what_is_no_ceiling_is_refused(profiled: Profile) -> None:
    def called(corpus: str, **more: object) -> Profile:
        return dataclasses.replace(
            profiled, config=profiled.config.model_copy(update={"corpus": corpus, "corpus_sha256": corpus, **more})
        )

    first, second = called("mini, first half", samples=3), called("mini, second half", samples=3)
    options = {"categorizer": NeuronCategorizer(threshold=0.005), "bridge": "2-4"}
    found = compare_profiles(profiled, called("other"), (first, second), **options)
    assert found.ceiling == found.agreements  # these are all the same numbers
    assert compare_profiles(profiled, first, (second, called("mini, first half", samples=4)), **options).ceiling
    for pair in (
        (first, first),
        (first, called("xquad, second half", samples=3)),
        (first, called("mini, second half", samples=50)),
        (profiled, called("other")),
        (called("mini"), second),
    ):
        with pytest.raises(ClasError, match="A ceiling is of the two halves of one corpus, and these are '"):
            compare_profiles(profiled, called("other"), pair, **options)
    for name, value in {"model": "another", "max_tokens": 7}.items():
        with pytest.raises(ClasError, match=f"differ in {name} .*so that they are no ceiling"):
            compare_profiles(profiled, first, (first, called(second.config.corpus, samples=3, **{name: value})), **options)
    with pytest.raises(ClasError, match="is the compared pair itself"):
        compare_profiles(second, first, (first, second), **options)


def test_profiles_of_other_models_are_refused(profiled: Profile, tokenizer: PreTrainedTokenizerFast) -> None:
    other = profile(make_model("qwen2"), tokenizer, ParallelInputBuilder("mini", ["en", "hi"], 2).build(), max_tokens=20)
    with pytest.raises(ClasError, match="was made for another model"):
        compare_profiles(profiled, other)


def test_profiles_that_count_other_positions_are_refused(profiled: Profile) -> None:
    """Whether the first position counts, which may hold the attention sink: that is no other corpus."""
    assert profiled.config.first_token == "skip"
    kept = dataclasses.replace(profiled, config=profiled.config.model_copy(update={"first_token": "keep"}))
    halves = [
        dataclasses.replace(
            profiled, config=profiled.config.model_copy(update={"corpus": f"mini-{half}", "corpus_sha256": half})
        )
        for half in ("first", "second")
    ]
    for pair, ceiling in (((profiled, kept), None), ((kept, profiled), None), ((kept, kept), (halves[0], halves[1]))):
        with pytest.raises(ClasError, match="One profile counts the first position of every text, and another does not"):
            compare_profiles(*pair, ceiling)
    assert compare_profiles(kept, kept).languages


def test_halves_are_every_other_item() -> None:
    whole = ParallelInputBuilder("mini", ["en", "hi"], 5).build()
    first, second = (ParallelInputBuilder("mini", ["en", "hi"], 5, half).build() for half in ("first", "second"))
    assert (first.ids, second.ids) == (whole.ids[::2], whole.ids[1::2])
    assert first.texts["hi"] == whole.texts["hi"][::2]
    assert (first.name, second.name) == ("mini, first half", "mini, second half")
    with pytest.raises(ClasError, match="--half is first or second"):
        ParallelInputBuilder("mini", ["en"], 1, "first").build()
    with pytest.raises(ClasError, match="--half is first or second"):
        ParallelInputBuilder("mini", ["en"], 4, "third").build()  # type: ignore[arg-type]


def test_stability_on_the_command_line(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    for name, options in {"a": (), "first": ("--half", "first"), "second": ("--half", "second")}.items():
        code, _, error = clas(
            "profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi,de", "--samples", 6, "--out",
            tmp_path / name, "--max-tokens", 60, "--device", "cpu", *options,
        )  # fmt: skip
        assert code == 0, error
    first, second = (Profile.load(tmp_path / name) for name in ("first", "second"))
    merged, whole = first.merge(second), Profile.load(tmp_path / "a")
    np.testing.assert_allclose(merged.mean("signed-mean", "all"), whole.mean("signed-mean", "all"), rtol=1e-4, atol=1e-6)
    code, text, error = clas(
        "stability", tmp_path / "a", tmp_path / "first", "--ceiling", tmp_path / "first", tmp_path / "second", "--out",
        tmp_path / "out" / "stability.json", "--bridge", "2-4", "--threshold", 0.005,
    )  # fmt: skip
    assert code == 0, error
    found = Stability.model_validate_json((tmp_path / "out" / "stability.json").read_bytes())
    assert (found.a, found.b) == ("mini (6 items)", "mini, first half (3 items)")
    assert found.ceiling_of == "mini, first half (3 items) / mini, second half (3 items)"
    assert "by chance" in text
    (tmp_path / "a" / "hi.safetensors").unlink()
    code, _, error = clas("stability", tmp_path / "a", tmp_path / "first")
    assert code == 2
    assert "is not finished (hi missing)" in error
