"""Profiles: against a slow reference, mergeable, independent of batches and padding, and resumable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import make_model
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import ClasError, Profile, profile
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import find_projections, reading
from lm_eval_clas.decoder.text_batches import Batch
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS
from lm_eval_clas.neurons.categories import categorize
from lm_eval_clas.neurons.instances import load_instance_shares, profile_instances
from lm_eval_clas.neurons.profiling import ActivationStatistics, batch_statistics, finished_profile
from lm_eval_clas.texts.corpora import ParallelTexts


def activations(tokenizer: PreTrainedTokenizerFast, text: str, max_tokens: int = 200) -> np.ndarray:
    """One text alone, float64 [layers, tokens, neurons] without BOS."""
    model = make_model()
    layers: list[torch.Tensor] = []
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens)["input_ids"]
    with reading(find_projections(model), lambda layer, h: layers.append(h[0, 1:].double())), torch.no_grad():
        model(ids)
    return torch.stack(layers).numpy()


# What each statistic takes the mean of.
SLOW: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "signed-mean": lambda h: h,
    "mean-abs": np.abs,
    "share-positive": lambda h: h > 0,
}


def test_every_statistic_equals_a_slow_reference(
    profiled: Profile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    for language in ("hi", "en"):
        each = [activations(tokenizer, text) for text in texts.texts[language]]
        index = profiled.languages.index(language)
        together, last = np.concatenate(each, axis=1), np.stack([one[:, -1] for one in each], axis=1)
        for tokens, h in (("all", together), ("last", last)):
            for statistic in STATISTICS:
                expected = SLOW[statistic](h).mean(axis=1)
                np.testing.assert_allclose(profiled.mean(statistic, tokens)[index], expected, rtol=1e-4, atol=1e-6)
        assert profiled.by_language[language].counts == {"all": together.shape[1], "last": len(each)}


@pytest.mark.parametrize(("batch_size", "padding"), [(1, "right"), (4, "left"), (6, "right")])
def test_batches_and_padding_do_not_matter(
    profiled: Profile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, batch_size: int, padding: str
) -> None:
    tokenizer.padding_side = padding
    other = profile(make_model(), tokenizer, texts, max_tokens=200, batch_size=batch_size)
    for tokens in TOKENS:
        for statistic in STATISTICS:
            np.testing.assert_allclose(other.mean(statistic, tokens), profiled.mean(statistic, tokens), rtol=1e-4, atol=1e-6)


def test_two_halves_merged_equal_the_whole(profiled: Profile, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> None:
    halves = [
        ParallelTexts("half", texts.ids[part], {one: lines[part] for one, lines in texts.texts.items()})
        for part in (slice(0, 2), slice(2, None))
    ]
    first, second = (profile(make_model(), tokenizer, half, max_tokens=200) for half in halves)
    merged = first.merge(second)
    assert merged.config.samples == len(texts.ids)
    for tokens in TOKENS:
        for statistic in STATISTICS:
            np.testing.assert_allclose(merged.mean(statistic, tokens), profiled.mean(statistic, tokens), rtol=1e-5, atol=1e-7)
    with pytest.raises(ClasError, match="differ in max_tokens"):
        first.merge(dataclasses.replace(second, config=second.config.model_copy(update={"max_tokens": 7})))


def test_low_precision_models_are_summed_in_float32(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> None:
    """Summing thousands of bfloat16 activations in bfloat16 would stall after 256 tokens; counts of [h > 0] show it."""
    result = profile(make_model(dtype=torch.bfloat16), tokenizer, texts, max_tokens=200)
    sums = result.by_language["hi"]
    share = sums.sums["all", "share-positive"]
    assert sums.counts["all"] > 1000
    assert np.array_equal(share, np.round(share))
    assert share.max() > 512


def test_saved_profiles_read_back(profiled: Profile, tmp_path: Path) -> None:
    profiled.save(tmp_path / "p")
    again = Profile.load(tmp_path / "p")
    assert again.config == profiled.config
    assert np.array_equal(again.mean("signed-mean", "all"), profiled.mean("signed-mean", "all"))
    (tmp_path / "p" / "hi.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ClasError, match=r"hi.safetensors' is damaged"):
        Profile.load(tmp_path / "p")
    with pytest.raises(ClasError, match="is not a profile"):
        Profile.load(tmp_path)


def test_an_interrupted_profile_keeps_finished_languages_and_goes_on(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, profiled: Profile, tmp_path: Path
) -> None:
    out = tmp_path / "p"

    def interrupt(language: str, done: int, total: int) -> None:
        if language == "de":
            raise KeyboardInterrupt

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        profile(model, tokenizer, texts, name="small-llama", out=out, max_tokens=200, report=interrupt)
    assert Profile.load(out).languages == ("en", "hi")
    assert not any(projection.module._forward_pre_hooks for projection in find_projections(model))
    before = (out / "hi.safetensors").stat().st_mtime_ns
    ran: list[str] = []
    whole = profile(
        make_model(), tokenizer, texts, name="small-llama", out=out, max_tokens=200,
        report=lambda language, done, total: ran.append(language) if done < total else None,
    )  # fmt: skip
    assert (out / "hi.safetensors").stat().st_mtime_ns == before
    assert np.array_equal(whole.mean("signed-mean", "all"), profiled.mean("signed-mean", "all"))
    with pytest.raises(ClasError, match=r"holds another profile \(it differs in max_tokens\)"):
        profile(make_model(), tokenizer, texts, name="small-llama", out=out, max_tokens=100)


def test_weights_that_were_trained_on_are_not_profiled_already(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    """In the same folder, under the same name, with the same shapes."""
    out, asked = tmp_path / "out", {"name": "small", "max_tokens": 200}

    def written(change: float) -> PreTrainedModel:
        model = make_model()
        with torch.no_grad():
            model.lm_head.weight += change
        model.save_pretrained(tmp_path / "model")
        return AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()

    first = profile(written(0), tokenizer, texts, out=out, **asked)  # type: ignore[arg-type]
    found = finished_profile(written(0), texts, out, **asked)  # type: ignore[arg-type]
    assert found is not None
    assert found.config.weights is not None
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"of an adapter")
    with_it = {**asked, "model_args": f"dtype=float32,peft={tmp_path / 'adapter'}"}
    assert finished_profile(written(0), texts, out, **with_it) is None  # type: ignore[arg-type]
    trained = written(1)
    assert finished_profile(trained, texts, out, **asked) is None  # type: ignore[arg-type]
    with pytest.raises(ClasError, match=r"holds another profile \(it differs in weights\)"):
        profile(trained, tokenizer, texts, out=out, **asked)  # type: ignore[arg-type]
    with pytest.raises(ClasError, match="they differ in weights"):
        first.merge(profile(trained, tokenizer, texts, **asked))  # type: ignore[arg-type]
    older = json.loads((out / "clas_profile.json").read_text(encoding="utf-8"))
    del older["weights"]  # as in folders from before
    (out / "clas_profile.json").write_text(json.dumps(older), encoding="utf-8")
    assert finished_profile(trained, texts, out, **asked) is not None  # type: ignore[arg-type]


def test_input_by_input_equals_a_slow_reference(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    profile(make_model(), tokenizer, texts, out=tmp_path, max_tokens=200)
    shares = profile_instances(make_model(), tokenizer, texts, tmp_path, max_tokens=200, batch_size=3)
    for tokens in TOKENS:
        expected = np.zeros((6, 4))
        for item in range(len(texts.ids)):
            h = [activations(tokenizer, texts.texts[language][item]) for language in texts.languages]
            active = np.stack([(one.mean(axis=1) if tokens == "all" else one[:, -1]) > 0 for one in h])
            categories = categorize(active)
            for category in range(4):
                expected[:, category] += (categories == category).mean(axis=1) / len(texts.ids)
        np.testing.assert_allclose(shares[tokens], expected, atol=1e-9)
        assert np.array_equal(load_instance_shares(tmp_path, "signed-mean", tokens, 0.0), shares[tokens])
    with pytest.raises(ClasError, match="threshold 0 only"):
        load_instance_shares(tmp_path, "signed-mean", "all", 0.5)


def test_shares_input_by_input_are_those_of_the_same_inputs(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    """Alone in a folder, too: what is there is taken for the same inputs only, and a profile may come after it."""
    alone, asked = tmp_path / "alone", {"max_tokens": 200, "batch_size": 3}
    shares = profile_instances(make_model(), tokenizer, texts, alone, **asked)  # type: ignore[arg-type]
    assert np.array_equal(load_instance_shares(alone, "signed-mean", "all", 0.0), shares["all"])
    counted: list[int] = []
    again = profile_instances(make_model(), tokenizer, texts, alone, report=counted.append, **asked)  # type: ignore[arg-type]
    assert (np.array_equal(again["last"], shares["last"]), counted) == (True, [])
    others = {language: lines[::-1] for language, lines in texts.texts.items()}
    for changed, model, given, options in (
        ("max_tokens", make_model(), texts, {**asked, "max_tokens": 100}),
        ("first_token", make_model(), texts, {**asked, "first_token": "keep"}),
        ("site", make_model(), texts, {**asked, "site": "attn"}),
        ("corpus_sha256", make_model(), ParallelTexts(texts.name, texts.ids, others), asked),
        ("fingerprint", make_model("qwen2"), texts, asked),
    ):
        with pytest.raises(ClasError, match=rf"holds another profile \(it differs in .*{changed}"):
            profile_instances(model, tokenizer, given, alone, **options)
    profile(make_model(), tokenizer, texts, out=alone, max_tokens=200)
    (alone / "clas_profile.json").unlink()
    with pytest.raises(ClasError, match="does not tell what it was made from; delete it, or choose another --out"):
        profile_instances(make_model(), tokenizer, texts, alone, **asked)  # type: ignore[arg-type]


def test_overflow_in_bos_or_padding_does_not_count_and_elsewhere_is_told() -> None:
    h = torch.tensor([[[float("inf"), 1.0], [1.0, -1.0], [2.0, 3.0]]])
    sums = batch_statistics(h, torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([2]))
    assert sums[0].tolist() == [[3.0, 2.0], [3.0, 4.0], [2.0, 1.0]]
    model = make_model()
    with torch.no_grad():
        find_projections(model)[0].module.weight.fill_(float("inf"))
    projections = find_projections(model)
    statistics = ActivationStatistics(projections, ModelFingerprint.of(model, projections))
    ids = torch.arange(5, 15)[None]
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.ones(1, 10), torch.tensor([9]))
    with statistics.reading():
        statistics.add(model, batch)
    with pytest.raises(ClasError, match="infinite in this dtype"):
        statistics.sums()


def test_texts_are_cut_to_the_models_positions(tokenizer: PreTrainedTokenizerFast) -> None:
    long = ParallelTexts("long", ("a",), {"en": ("x" * 700,), "de": ("y" * 700,)})
    result = profile(make_model("opt"), tokenizer, long)
    assert result.config.max_tokens == 512
    assert result.by_language["en"].counts["all"] == 511


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_special_tokens_alone_are_told_from_texts_without_tokens(
    tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, max_tokens: int
) -> None:
    """BOS fills the only position that --max-tokens 1 leaves; 2 is the smallest number that works."""
    if max_tokens == 1:
        with pytest.raises(ClasError, match=r"--max-tokens 1 leaves nothing of a text but special tokens .* give 2 or more"):
            profile(make_model(), tokenizer, texts, max_tokens=max_tokens)
        return
    assert profile(make_model(), tokenizer, texts, max_tokens=max_tokens).by_language["hi"].counts == {"all": 6, "last": 6}
    with pytest.raises(ClasError, match="nothing but special tokens of the text '' of the corpus; take it out"):
        profile(make_model(), tokenizer, ParallelTexts("x", ("1",), {"en": ("",)}))


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (["en", "HI"], "languages.1: language 'HI' is written 'hi'"),
        (["en", "zh-hant"], "language 'zh-hant' is written 'zh'"),
        (["en", "../x"], "'../x' is no language code"),
        (["en", "en"], "a language is listed twice"),
    ],
)
def test_languages_of_profiles_are_normalised(profiled: Profile, tmp_path: Path, languages: list[str], message: str) -> None:
    profiled.save(tmp_path)
    path = tmp_path / "clas_profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "languages": languages}))
    with pytest.raises(ClasError, match=message):
        Profile.load(tmp_path)


@pytest.mark.parametrize("what", ["model", "corpus"])
def test_names_that_could_not_be_read_again_are_not_written(what: str, profiled: Profile, tmp_path: Path) -> None:
    """Before anything is measured."""
    odd = Profile(profiled.config.model_copy(update={what: "a\nb"}), profiled.by_language)
    with pytest.raises(ClasError, match=rf"The {what}'s name 'a\\nb' cannot be printed on one line; give another one"):
        odd.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
