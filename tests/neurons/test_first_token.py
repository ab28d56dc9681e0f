"""The first position, where no special token stands: left out of profiles or kept in them, and said so in every folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet, NeuronCategorizer, Profile, profile
from lm_eval_clas.decoder.projections import find_projections, reading
from lm_eval_clas.decoder.text_batches import text_batches
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.masks.adding import MonolingualText, add_language
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS, FirstToken
from lm_eval_clas.neurons.categories import categorize
from lm_eval_clas.neurons.instances import profile_instances
from lm_eval_clas.texts.corpora import ParallelTexts

FIRST: tuple[FirstToken, ...] = ("keep", "skip")


def one_by_one(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...], first_token: FirstToken) -> list[np.ndarray]:
    """Each text alone and unpadded, float64 [layers, tokens that count, neurons]."""
    model, found = make_model(), []
    for text in texts:
        layers: list[torch.Tensor] = []
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=200)["input_ids"]
        with reading(find_projections(model), lambda layer, h, to=layers: to.append(h[0].double())), torch.no_grad():
            model(ids)
        found.append(torch.stack(layers).numpy()[:, 1 if first_token == "skip" else 0 :])
    return found


@pytest.mark.parametrize("first_token", FIRST)
@pytest.mark.parametrize(("batch_size", "side"), [(1, "right"), (4, "left"), (6, "right")])
def test_sums_equal_a_slow_reference_whatever_the_batches(
    bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, first_token: FirstToken, batch_size: int, side: str
) -> None:
    bare_tokenizer.padding_side = side
    found = profile(make_model(), bare_tokenizer, texts, max_tokens=200, batch_size=batch_size, first_token=first_token)
    bare_tokenizer.padding_side = "right"
    assert found.config.first_token == first_token
    for number, language in enumerate(found.languages):
        each = one_by_one(bare_tokenizer, texts.texts[language], first_token)
        together, last = np.concatenate(each, axis=1), np.stack([one[:, -1] for one in each], axis=1)
        for tokens, h in (("all", together), ("last", last)):
            for statistic, value in (("signed-mean", h), ("mean-abs", np.abs(h)), ("share-positive", h > 0)):
                np.testing.assert_allclose(found.mean(statistic, tokens)[number], value.mean(axis=1), rtol=1e-4, atol=1e-6)
        assert found.by_language[language].counts == {"all": together.shape[1], "last": len(each)}


def test_leaving_it_out_is_the_default_and_changes_what_all_tokens_give_but_not_the_last_ones(
    bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    kept = profile(make_model(), bare_tokenizer, texts, max_tokens=60, first_token="keep")
    skipped = profile(make_model(), bare_tokenizer, texts, max_tokens=60)
    assert skipped.config.first_token == "skip"
    for statistic in STATISTICS:
        assert not np.allclose(kept.mean(statistic, "all"), skipped.mean(statistic, "all"), rtol=1e-3)
        np.testing.assert_array_equal(kept.mean(statistic, "last"), skipped.mean(statistic, "last"))


@pytest.mark.parametrize("first_token", FIRST)
def test_input_by_input_equals_a_slow_reference(
    bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, first_token: FirstToken
) -> None:
    shares = profile_instances(
        make_model(), bare_tokenizer, texts, max_tokens=200, batch_size=3, first_token=first_token
    )  # fmt: skip
    each = [one_by_one(bare_tokenizer, texts.texts[language], first_token) for language in texts.languages]
    for tokens in TOKENS:
        expected = np.zeros((6, 4))
        for item in range(len(texts.ids)):
            h = [by_language[item] for by_language in each]
            active = np.stack([(one.mean(axis=1) if tokens == "all" else one[:, -1]) > 0 for one in h])
            for category in range(4):
                expected[:, category] += (categorize(active) == category).mean(axis=1) / len(texts.ids)
        np.testing.assert_allclose(shares[tokens], expected, atol=1e-9)


def test_where_bos_stands_there_nothing_changes(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> None:
    lines = texts.texts["hi"]
    plain, skipping = (list(text_batches(tokenizer, lines, 4, 200, torch.device("cpu"), skip_first=skip)) for skip in (0, 1))
    for one, other in zip(plain, skipping, strict=True):
        assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
        assert torch.equal(one.real, other.real)
        assert torch.equal(one.last, other.last)
    kept, skipped = (profile(make_model(), tokenizer, texts, max_tokens=200, first_token=first).by_language for first in FIRST)
    for language in texts.languages:
        assert kept[language].counts == skipped[language].counts
        for key, sums in kept[language].sums.items():
            assert np.array_equal(sums, skipped[language].sums[key])
    shares = [profile_instances(make_model(), tokenizer, texts, max_tokens=200, first_token=first) for first in FIRST]
    assert all(np.array_equal(shares[0][tokens], shares[1][tokens]) for tokens in TOKENS)


def test_profiles_that_differ_in_it_are_not_put_together(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    kept, skipped = (
        profile(make_model(), tokenizer, texts, name="small", out=tmp_path / first, max_tokens=20, first_token=first)
        for first in FIRST
    )
    with pytest.raises(ClasError, match=r"cannot be merged: they differ in first_token\."):
        kept.merge(skipped)
    with pytest.raises(ClasError, match=r"keep' holds another profile \(it differs in first_token\); choose another --out"):
        profile(make_model(), tokenizer, texts, name="small", out=tmp_path / "keep", max_tokens=20, first_token="skip")


def test_folders_from_before_kept_it(profiled: Profile, masks: MaskSet, tmp_path: Path) -> None:
    assert profiled.config.first_token == masks.config.first_token == "skip"
    profiled.save(tmp_path / "profile")
    masks.save(tmp_path / "masks")
    for path in (tmp_path / "profile" / "clas_profile.json", tmp_path / "masks" / "clas_config.json"):
        content = json.loads(path.read_text())
        del content["first_token"]
        path.write_text(json.dumps(content))
    assert Profile.load(tmp_path / "profile").config == profiled.config.model_copy(update={"first_token": "keep"})
    old = MaskSet.load(tmp_path / "masks")
    assert (old.config.first_token, old.hash) == ("keep", masks.hash)
    for folder in shipped("masks").iterdir():
        assert "first_token" not in json.loads((folder / "clas_config.json").read_text())
        assert MaskSet.load(folder).config.first_token == "keep"


def test_masks_say_what_was_done(
    clas: Run, bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    for first, words in (("keep", "all tokens above 0"), ("skip", "all but first tokens above 0")):
        found = profile(make_model(), bare_tokenizer, texts, max_tokens=60, first_token=first)
        made = MaskSet.from_profile(found, bridge="2-4")
        made.save(tmp_path / first)
        assert MaskSet.load(tmp_path / first).config.first_token == first
        code, shown, _ = clas("inspect", tmp_path / first)
        assert (code, f"signed-mean over {words}\n" in shown) == (0, True)
        code, shown, _ = clas("inspect", tmp_path / first, "--json")
        assert json.loads(shown)["first_token"] == first
    last = MaskSet.from_profile(found, categorizer=NeuronCategorizer(tokens="last"), bridge="2-4")
    assert last.config.activity == "signed-mean over last tokens above 0"


@pytest.mark.parametrize("first_token", FIRST)
def test_added_languages_are_profiled_as_the_others_were(
    bare_tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path, first_token: FirstToken
) -> None:
    found = profile(make_model(), bare_tokenizer, texts, max_tokens=60, first_token=first_token)
    made = MaskSet.from_profile(found, bridge="2-4", keep_means=True)
    (tmp_path / "quy.txt").write_text("Huk.\nIskay runa.\n")
    both = add_language(made, make_model(), bare_tokenizer, MonolingualText.parse(f"quy={tmp_path / 'quy.txt'}"))
    each = one_by_one(bare_tokenizer, ("Huk.", "Iskay runa."), first_token)
    assert both.means is not None
    np.testing.assert_allclose(both.means[-1], np.concatenate(each, axis=1).mean(axis=1), rtol=1e-4, atol=1e-6)


def test_a_text_of_one_token_has_nothing_that_counts_and_is_told(bare_tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = ParallelTexts("x", ("1", "2"), {"en": ("two", "x"), "de": ("zwei", "zz")})
    with pytest.raises(
        ClasError, match=r"^The tokenizer makes nothing but a first token, which does not count, of the text 'x' of the corpus"
    ):
        profile(make_model(), bare_tokenizer, corpus)
    counts = profile(make_model(), bare_tokenizer, corpus, first_token="keep").by_language["en"].counts
    assert counts == {"all": 4, "last": 2}
    longer = ParallelTexts("x", ("1",), {"en": ("two",), "de": ("zwei",)})
    with pytest.raises(
        ClasError,
        match=r"^--max-tokens 1 leaves nothing of a text but its first token, which does not count; give 2 or more\.$",
    ):
        profile(make_model(), bare_tokenizer, longer, max_tokens=1)
    assert profile(make_model(), bare_tokenizer, longer, max_tokens=1, first_token="keep").by_language["en"].counts["all"] == 1
