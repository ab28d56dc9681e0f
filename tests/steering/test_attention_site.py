"""Site attn: whole heads, other methods and sources of masks, the folders, and the way through the commands and the harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.evaluator import evaluate
from requests_made import KINDS, requests
from slow_lape import slow
from small_models import FAMILIES, HIDDEN, LAYERS, Run, columns, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile, profile
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.masks.adding import MonolingualText, add_language
from lm_eval_clas.masks.lape import LapeSelector, with_lape, with_neuron_file
from lm_eval_clas.neurons.profile_folder import ProfileConfig
from lm_eval_clas.neurons.stability import compare_profiles
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.texts.corpora import ParallelTexts
from lm_eval_clas.tuning.measuring import grid

HEADS = 4
WIDTH = HIDDEN // HEADS
IDS = torch.arange(7, 47).reshape(2, 20)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def attention(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> Profile:
    """The small Llama's profile of attention."""
    return profile(make_model(), tokenizer, texts, name="small-llama", max_tokens=200, site="attn")


def made(profiled: Profile, by: str, **options: Any) -> MaskSet:
    """Masks with a threshold in the middle, so that languages differ."""
    middle = float(np.median(profiled.units("signed-mean", "all", by)[:, 2:5]))  # type: ignore[arg-type]
    return MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=middle, by=by), bridge="2-4", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["channel", "head"])
def masks_of(request: pytest.FixtureRequest, attention: Profile) -> MaskSet:
    """Masks of attention with means, by channel and by head."""
    return made(attention, request.param, keep_means=True)


@pytest.fixture(scope="module")
def by_head(attention: Profile) -> MaskSet:
    return made(attention, "head")


def constant_in_heads(masks: np.ndarray) -> bool:
    return all((masks[..., h * WIDTH : (h + 1) * WIDTH] == masks[..., h * WIDTH, None]).all() for h in range(HEADS))


@pytest.mark.parametrize("statistic", ["signed-mean", "mean-abs", "share-positive"])
@pytest.mark.parametrize("tokens", ["all", "last"])
def test_a_head_is_active_where_the_mean_over_its_channels_is_above(attention: Profile, statistic: Any, tokens: Any) -> None:
    means = attention.mean(statistic, tokens)
    threshold = float(np.median(means)) + 1e-5  # shares of few texts are often equal to their median but for rounding
    active = NeuronCategorizer(statistic, tokens, threshold, by="head").active(attention)
    assert active.shape == means.shape
    for language, layer, head in np.ndindex(len(attention.languages), LAYERS, HEADS):
        own = slice(head * WIDTH, (head + 1) * WIDTH)
        expected = sum(float(one) for one in means[language, layer, own]) / WIDTH > threshold
        assert active[language, layer, own].tolist() == [expected] * WIDTH
    assert not constant_in_heads(NeuronCategorizer(statistic, tokens, threshold).active(attention))


def test_categories_and_factors_are_constant_within_heads(by_head: MaskSet) -> None:
    assert set(np.unique(by_head.categories[2:5])) >= {1, 2}
    assert constant_in_heads(by_head.categories)
    for options in ({}, {"method": "random", "seed": 5}, {"specific_scope": "own", "partial_scope": "anchor"}):
        factors = intervention_in(by_head, SteeringOptions.parse(by_head, 2.0, **options), "de").factors  # type: ignore[arg-type]
        assert constant_in_heads(factors)
        assert (factors[2:5] != 1).any()


def test_the_random_control_moves_whole_heads(by_head: MaskSet) -> None:
    clas, one, other = (
        intervention_in(by_head, SteeringOptions.parse(by_head, 2.0, method=method, seed=seed), "de").factors
        for method, seed in (("clas", 0), ("random", 1), ("random", 2))
    )
    assert np.array_equal(np.sort(clas), np.sort(one))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "opt", "xglm", "gpt2", "olmo2"])
@pytest.mark.parametrize("head", range(HEADS))
def test_channels_of_a_head_are_what_its_values_make(family: str, head: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the values of a head, its part of the concatenation is 0: so the channels lie side by side, head by head."""
    if "num_key_value_heads" in FAMILIES[family]:
        monkeypatch.setitem(FAMILIES, family, FAMILIES[family] | {"num_key_value_heads": HEADS})
    model = make_model(family)
    output = find_projections(model, "attn")[3]
    attention = model.get_submodule(output.name.rpartition(".")[0])
    assert output.heads == HEADS
    own = slice(head * WIDTH, (head + 1) * WIDTH)

    def zero(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = args[0].clone()
        changed[..., own] = 0
        return (changed,)

    plain = logits(model)
    hook = output.module.register_forward_pre_hook(zero)
    without = logits(model)
    hook.remove()
    values = attention.c_attn if family == "gpt2" else attention.v_proj
    rows = slice(2 * HIDDEN + own.start, 2 * HIDDEN + own.stop) if family == "gpt2" else own
    with torch.no_grad():
        columns(values)[rows] = 0
        if values.bias is not None:
            values.bias[rows] = 0
    torch.testing.assert_close(logits(model), without, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, without, atol=1e-3)


def test_int_mu_draws_attention_to_its_mean(masks_of: MaskSet, model: PreTrainedModel) -> None:
    language = max((one for one in ("hi", "de", "zh")), key=lambda one: masks_of.specific_in(one)[2:5].sum())
    own, means = masks_of.specific_in(language), masks_of.means
    assert means is not None
    assert own[2:5].any()
    with ActivationSteerer(model, masks_of, method="int-mu", alpha=0.7) as steerer, steerer.language(language):
        steered = logits(model)

    def draw(layer: int, h: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        for neuron in np.flatnonzero(own[layer]):
            h[..., neuron] += 0.7 * (float(means[masks_of.index(language), layer, neuron]) - h[..., neuron])
        return h

    for layer in masks_of.bridge_layers:
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(
            lambda module, args, layer=layer: (draw(layer, args[0]),)
        )
    torch.testing.assert_close(steered, logits(model), rtol=1e-4, atol=1e-4)


def test_lape_takes_and_leaves_whole_heads(attention: Profile, by_head: MaskSet) -> None:
    selector = LapeSelector(top=0.4, percentile=0.5)
    found = with_lape(by_head, attention, selector)
    assert found.owned is not None
    assert constant_in_heads(found.owned)
    shares = attention.mean("share-positive", "all").reshape(4, LAYERS, HEADS, WIDTH).mean(-1)
    for language, by_layer in enumerate(slow(shares, 0.4, 0.5)):
        for layer, heads in enumerate(by_layer):
            assert np.flatnonzero(found.owned[language, layer, ::WIDTH]).tolist() == sorted(heads)


def test_neuron_files_are_of_mlps(by_head: MaskSet, tmp_path: Path) -> None:
    with pytest.raises(ClasError, match="lists MLP neurons, and these masks are of attention"):
        with_neuron_file(by_head, tmp_path / "any.neuron.pth", ["en"])


@pytest.mark.parametrize("lape", [False, True])
def test_a_language_is_added_at_the_site_of_the_masks(
    attention: Profile, masks_of: MaskSet, lape: bool, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    file = tmp_path / "quechua.txt"
    file.write_text("Runasimi Qullasuyupi rimasqa simim.\nInti punchawta kanchan.\n")
    lines = tuple(file.read_text().split("\n")[:2])
    before = with_lape(masks_of, attention, LapeSelector(0.4, 0.5)) if lape else masks_of
    after = add_language(before, make_model(), tokenizer, MonolingualText.parse(f"quy={file}"))
    direct = profile(make_model(), tokenizer, ParallelTexts("q", ("0", "1"), {"quy": lines}), max_tokens=200, site="attn")
    config = before.config
    expected = NeuronCategorizer(config.statistic, config.tokens, config.threshold, config.by).active(direct)[0]
    assert np.array_equal(after.active_in("quy"), expected)
    if config.by == "head":
        assert constant_in_heads(after.active)
        assert constant_in_heads(after.specific_in("quy"))


def test_folders_read_back_and_hashes_tell_sites_apart(masks_of: MaskSet, tmp_path: Path) -> None:
    again = MaskSet.load(masks_of.save(tmp_path / "masks"))
    assert (again.config.site, again.config.by) == ("attn", masks_of.config.by)
    assert again.config.model.fingerprint.heads == HEADS
    assert again.hash == masks_of.hash
    mlp = MaskSet(masks_of.config.model_copy(update={"site": "mlp", "by": "channel"}), masks_of.active)
    assert mlp.hash != masks_of.hash
    path = tmp_path / "masks" / "clas_config.json"
    content = json.loads(path.read_text())
    content["model"]["fingerprint"]["heads"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(ClasError, match="5 heads do not share 32 channels evenly"):
        MaskSet.load(tmp_path / "masks")
    content["model"]["fingerprint"]["heads"] = None
    path.write_text(json.dumps(content))
    if masks_of.config.by == "head":
        with pytest.raises(ClasError, match="by head, and names no attention heads"):
            MaskSet.load(tmp_path / "masks")


def test_folders_from_before_there_were_sites_are_of_mlps(profiled: Profile, tmp_path: Path) -> None:
    old = profiled.config.model_dump(exclude={"site": True, "fingerprint": {"heads"}})
    assert ProfileConfig.model_validate(old) == profiled.config
    assert MaskSet.load("gemma-3-270m").hash == "de160fba7f6eecf4"
    folder = MaskSet.from_profile(profiled, bridge="2-3").save(tmp_path / "masks")
    path = folder / "clas_config.json"
    content = json.loads(path.read_text())
    del content["site"], content["by"], content["model"]["fingerprint"]["heads"]
    hashed = MaskSet.load(folder).hash
    path.write_text(json.dumps(content))
    assert MaskSet.load(folder).hash == hashed
    assert MaskSet.load(folder).config.site == "mlp"


def test_sites_and_heads_do_not_mix(attention: Profile, profiled: Profile, by_head: MaskSet, monkeypatch: Any) -> None:
    with pytest.raises(ClasError, match="One profile is of site attn, another of mlp"):
        compare_profiles(attention, profiled)
    with pytest.raises(ClasError, match="Only attention has heads"):
        NeuronCategorizer(by="head").active(profiled)
    with pytest.raises(ClasError, match="by must be one of channel, head"):
        NeuronCategorizer(by="layer")  # type: ignore[arg-type]
    monkeypatch.setitem(FAMILIES, "llama", FAMILIES["llama"] | {"num_attention_heads": 8})
    with pytest.raises(ClasError, match="attention heads 4 there, 8 in the model"):
        ActivationSteerer(make_model(), by_head)


def test_attention_that_is_not_found_is_refused_and_can_be_named() -> None:
    model = make_model()
    for layer in model.model.layers:
        layer.mixing = layer.self_attn
        layer.mixing.__class__ = type("Mixing", (type(layer.mixing),), {})  # neither its name nor its class says attention
        del layer.self_attn
    with pytest.raises(ClasError, match=r"no single output projection of attention.*mixing\.o_proj.*projection=PATTERN"):
        find_projections(model, "attn")
    found = find_projections(model, "attn", "*.mixing.o_proj")
    assert [one.heads for one in found] == [HEADS] * LAYERS
    twice = make_model()
    twice.model.layers[2].other_attn = twice.model.layers[3].self_attn
    with pytest.raises(ClasError, match="several modules of a layer could be attention's output projection"):
        find_projections(twice, "attn")


@pytest.mark.parametrize("kind", KINDS)
def test_hf_clas_follows_the_site_of_the_masks(masks_of: MaskSet, kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = CLASLM(make_model(), masks=masks_of, tokenizer=tokenizer, batch_size=3, alpha=-4.0)
    scaled = make_model()
    factors = intervention_in(masks_of, SteeringOptions.parse(masks_of, -4.0), "de").factors
    with torch.no_grad():
        for layer in range(LAYERS):
            scaled.model.layers[layer].self_attn.o_proj.weight.mul_(torch.from_numpy(factors[layer]))
    asked = requests(kind, ("de",))
    answers, expected = (getattr(one, kind)(asked) for one in (lm, FastLM(scaled, tokenizer=tokenizer, batch_size=3)))
    if kind == "generate_until":
        assert answers == expected
    else:
        assert np.ravel(answers) == pytest.approx(np.ravel(expected), rel=1e-4)
    assert answers != getattr(FastLM(make_model(), tokenizer=tokenizer, batch_size=3), kind)(asked)
    assert lm.steering_info()["site"] == "attn"


def test_a_sweep_resumes_under_steered_attention(masks_of: MaskSet, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    names = ["clas_mini_nli_hi", "clas_mini_qa_de"]
    settings = grid(masks_of, [-3, 2])
    for name, task in load_tasks(names, [str(shipped("tasks"))]).items():
        answers = []
        for resume in (True, False):
            sweep = Sweep(FastLM(make_model(), tokenizer=tokenizer, batch_size=2), masks_of, settings, resume)
            sweep.start(tmp_path / f"{name}{resume}.jsonl", lambda done, total: None)
            rows = []
            for sweep.setting in range(len(settings)):
                samples = evaluate(sweep, {name: task}, limit=4, bootstrap_iters=0)["samples"][name]
                rows.append([one["resps"] for one in samples])
            answers.append(rows)
            assert (sweep._tape is not None) == resume
        assert answers[0] == answers[1]
        assert answers[0][0] != answers[0][1]


def test_the_commands_go_all_the_way(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    out, masks = tmp_path / "profile", tmp_path / "masks"
    common = ["--corpus", "mini", "--languages", "en,hi,de", "--samples", 3, "--max-tokens", 60, "--device", "cpu"]
    command = ["profile", "--model", checkpoint, *common, "--out", out, "--level", "instance"]
    assert clas(*command, "--site", "attn")[0] == 0
    code, _, error = clas(*command)
    assert code != 0
    assert "differs in fingerprint, site" in error.replace("\n", " ")
    by_heads = ["masks", out, "--out", masks, "--by", "head", "--bridge", "2-4"]
    code, shown, error = clas(*by_heads, "--threshold", "0.001")
    assert code == 0, error
    assert "32 channels of attention's output" in shown
    assert "by head (4 heads)" in shown
    code, _, error = clas(*by_heads, "--level", "instance")
    assert code != 0
    assert "counts channels and not heads" in error
    info = json.loads(clas("inspect", masks, "--json")[1])
    assert (info["site"], info["by"]) == ("attn", "head")
    assert clas("masks", out, "--out", tmp_path / "channels", "--level", "instance", "--bridge", "2-4")[0] == 0
    assert MaskSet.load(tmp_path / "channels").config.instance_shares
    code, _, error = clas(
        "tune", "--model", checkpoint, "--masks", masks, "--tasks", "clas_mini_nli_hi", "--alphas=-2,0,2", "--limit", 2,
        "--out", tmp_path / "run", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, error
    assert MaskSet.load(masks).config.tuned["clas_mini_nli"]["hi"].items == 2
