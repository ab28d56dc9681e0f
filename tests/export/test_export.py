"""Hook, (IA)3 adapter and merged checkpoint are one function; what is written is complete, exact, and all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import made_masks, small_model, token_loglikelihoods, write
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from small_models import FAMILIES, NEURONS, Run, make_model
from transformers import AutoModelForCausalLM

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet
from lm_eval_clas.decoder.checkpoint import weight_key
from lm_eval_clas.disk.tensor_bytes import header
from lm_eval_clas.export.ia3_adapter import adapter_config
from lm_eval_clas.export.outline import outline, scalings
from lm_eval_clas.masks.strengths import TriedSetting, TunedStrength

peft = pytest.importorskip("peft")


@pytest.mark.parametrize("family", FAMILIES)
def test_hook_adapter_and_merged_checkpoint_are_one_function(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    masks = made_masks(model)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    plain = token_loglikelihoods(model)
    with ActivationSteerer(model, masks, alpha=-2.0) as steerer, steerer.language("hi"):
        hooked = token_loglikelihoods(model)
    merged = AutoModelForCausalLM.from_pretrained(write("merged", masks, tmp_path / "model", tmp_path / "merged"))
    adapted = peft.PeftModel.from_pretrained(model, write("ia3", masks, tmp_path / "model", tmp_path / "ia3"))
    torch.testing.assert_close(token_loglikelihoods(adapted), hooked, rtol=1e-5, atol=0)
    torch.testing.assert_close(token_loglikelihoods(merged.eval()), hooked, rtol=1e-5, atol=0)
    assert not torch.allclose(plain, hooked, rtol=1e-3)


def test_the_three_ways_through_the_harness(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    requests = [
        Instance("loglikelihood", {}, (text, answer), 0, ("test_hi", 0, 1))
        for text in ("सारस घोंसला बनाता है।", "चाय गीली पहाड़ियों पर उगती है।")
        for answer in (" हाँ", " नहीं", "?")
    ]
    common: dict[str, Any] = {"pretrained": str(source), "device": "cpu", "batch_size": 1}
    hook = CLASLM(**common, masks=source_masks, alpha=-2.0, scoring="stock").loglikelihood(requests)
    adapter = HFLM(**common, peft=str(write("ia3", source_masks, source, tmp_path / "ia3"))).loglikelihood(requests)
    merged = HFLM(**common | {"pretrained": str(write("merged", source_masks, source, tmp_path / "merged"))})
    for answers in (adapter, merged.loglikelihood(requests)):
        assert [one[0] for one in answers] == pytest.approx([one[0] for one in hook], rel=1e-5)
        assert [one[1] for one in answers] == [one[1] for one in hook]
    assert [one[0] for one in HFLM(**common).loglikelihood(requests)] != pytest.approx([one[0] for one in hook], rel=1e-3)


def test_the_adapters_configuration_is_pefts_own(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    folder = write("ia3", source_masks, source, tmp_path / "ia3", layers=(1, 4))
    names = ["model.layers.1.mlp.down_proj", "model.layers.4.mlp.down_proj"]
    read = peft.PeftConfig.from_pretrained(folder).to_dict()
    expected = peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=names,
        feedforward_modules=names,
        inference_mode=True,
        base_model_name_or_path=str(source.resolve()),
    ).to_dict()
    ours = set(json.loads((folder / "adapter_config.json").read_text()))
    assert {key: read[key] for key in ours} == {key: expected[key] for key in ours}
    assert ours >= set(expected) - {"peft_version"}
    vectors = load_file(folder / "adapter_model.safetensors")
    assert {name: (tuple(one.shape), one.dtype) for name, one in vectors.items()} == {
        f"base_model.model.{name}.ia3_l": ((1, NEURONS), torch.float32) for name in names
    }
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), folder)
    hooked = [name for name, module in wrapped.named_modules() if isinstance(module, peft.tuners.ia3.IA3Layer)]
    assert [name.removeprefix("base_model.model.") for name in hooked] == names


def test_every_bridge_layer_of_many_is_adapted(tmp_path: Path) -> None:
    """PEFT shortens long lists of modules for other adapters, and matches names by their ends."""
    model = small_model("llama", num_hidden_layers=26)
    masks = made_masks(model, tuple(range(1, 25)))
    model.save_pretrained(tmp_path / "model")
    with ActivationSteerer(model, masks, alpha=0.3) as steerer, steerer.language("de"):
        hooked = token_loglikelihoods(model)
    folder = write("ia3", masks, tmp_path / "model", tmp_path / "ia3", "de", alpha=0.3)
    adapted = peft.PeftModel.from_pretrained(model, folder)
    torch.testing.assert_close(token_loglikelihoods(adapted), hooked, rtol=1e-5, atol=0)


def test_merging_changes_the_bytes_of_the_scaled_weights_alone(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    folder = write("merged", source_masks, source, tmp_path / "merged")
    assert {path.name for path in source.iterdir()} - {path.name for path in folder.iterdir()} == {
        "pytorch_model.bin.index.json"
    }
    (one,), _ = scalings(source_masks, ["hi"], alpha=-2.0)
    scaled = {f"model.layers.{layer}.mlp.down_proj.weight": one.factors[layer] for layer in (2, 3, 4)}
    shards = sorted(source.glob("*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        before, after = load_file(shard), load_file(folder / shard.name)
        assert header(shard) == header(folder / shard.name)
        assert shard.stat().st_size == (folder / shard.name).stat().st_size
        for key, weight in before.items():
            expected = weight * torch.from_numpy(scaled.pop(key)) if key in scaled else weight
            assert torch.equal(after[key], expected), key
    assert not scaled
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json", "LICENSE"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert "steered for Hindi" in (folder / "README.md").read_text()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_is_kept_and_the_product_is_rounded_once(dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_model(dtype=dtype)
    masks = made_masks(model)
    model.save_pretrained(tmp_path / "model")
    merged = load_file(write("merged", masks, tmp_path / "model", tmp_path / "merged") / "model.safetensors")
    (one,), _ = scalings(masks, ["hi"], alpha=-2.0)
    weight = model.get_submodule("model.layers.3.mlp.down_proj").weight.detach()
    expected = (weight.double() * torch.from_numpy(one.factors[3]).double()).to(dtype)
    found = merged["model.layers.3.mlp.down_proj.weight"]
    assert found.dtype == dtype
    # float32 holds the product of a 16-bit weight and a short factor almost exactly: at most one rounding apart.
    torch.testing.assert_close(found, expected, rtol=float(torch.finfo(dtype).eps), atol=0)


def test_a_checkpoint_saved_without_its_head_is_merged(tmp_path: Path) -> None:
    model = small_model("gpt2")
    masks = made_masks(model)
    model.save_pretrained(tmp_path / "whole")
    bare = model.base_model
    bare.config.architectures = ["GPT2LMHeadModel"]
    bare.save_pretrained(tmp_path / "bare")
    assert "h.0.mlp.c_proj.weight" in load_file(tmp_path / "bare" / "model.safetensors")
    pair = [
        AutoModelForCausalLM.from_pretrained(write("merged", masks, tmp_path / name, tmp_path / f"{name}-merged")).eval()
        for name in ("whole", "bare")
    ]
    assert torch.equal(token_loglikelihoods(pair[0]), token_loglikelihoods(pair[1]))


def test_keys_are_found_by_what_does_not_change() -> None:
    keys = [f"{start}.layers.{i}.mlp.down_proj.weight" for start in ("language_model.model", "draft") for i in range(20)]
    towers = [f"vision_tower.layers.{i}.mlp.down_proj.weight" for i in range(20)]
    module = "model.language_model.layers.1.mlp.down_proj"
    for there in (keys[:20] + towers, keys, keys[::-1]):
        assert weight_key(module, there) == "language_model.model.layers.1.mlp.down_proj.weight"
    assert weight_key("model.layers.1.mlp.down_proj", [*keys, "layers.1.mlp.down_proj.bias"]) == keys[1]
    with pytest.raises(ClasError, match="several weights that could be it"):
        weight_key("backbone.layers.1.mlp.down_proj", keys)
    with pytest.raises(ClasError, match=r"none that ends in 'layers\.1\.mlp\.down_proj\.weight'"):
        weight_key(module, [*keys, f"{module}.weight_packed"])  # the model's own list is there, and so no other is it
    with pytest.raises(ClasError, match=r"none that ends in 'layers\.1\.mlp\.down_proj\.weight'.*--format ia3"):
        weight_key(module, towers)


def run_export(clas: Run, masks: Any, model: Path, out: Path, *more: object) -> tuple[int, str, str]:
    return clas("export", masks, "--model", model, "--out", out, *more)


def test_one_call_writes_a_folder_for_each_language(clas: Run, source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    folder = source_masks.save(tmp_path / "masks")
    code, printed, error = run_export(
        clas, folder, source, tmp_path / "all", "--language", "all", "--format", "ia3", "--alpha", "0.5", "--layers", "2-3"
    )
    assert code == 0, error
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"hi", "de", "zh"}
    assert f"peft={tmp_path / 'all' / 'hi'}" in printed
    info = json.loads((tmp_path / "all" / "de" / "clas_export.json").read_text())
    assert (info["language"], info["alpha"], info["layers"], info["masks_hash"]) == ("de", 0.5, [2, 3], source_masks.hash)
    assert str(tmp_path) not in json.dumps(info)
    code, _, error = run_export(
        clas, folder, source, tmp_path / "two", "--language", "hin_Deva", "--language", "zh,de", "--format", "merged"
    )
    assert code == 0, error
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"hi", "de", "zh"}
    code, _, error = run_export(clas, folder, source, tmp_path / "one", "--language", "hi", "--format", "merged")
    assert code == 0, error
    assert (tmp_path / "one" / "config.json").is_file()


def tuned_masks(masks: MaskSet) -> MaskSet:
    def strength(alpha: float) -> TunedStrength:
        measured = TriedSetting(alpha=alpha, beta=0.3, gamma=0.1, layers=[3], score=1, gain=0, low=0, high=0)
        return TunedStrength(
            chosen=measured, best=measured, p_value=1, objective="metric", metric="acc", guarded=False, shared=False,
            tasks=["t"], items=1, items_sha256="0" * 64, measured=[measured],
        )  # fmt: skip

    return masks.with_tuned(
        {"clas_xnli": {"hi": strength(1.5), "de": strength(0)}, "clas_xquad": {"hi": strength(-4), "zh": strength(2)}}
    )


def test_tuned_strengths_are_those_of_the_task(source_masks: MaskSet) -> None:
    masks = tuned_masks(source_masks)
    found, skipped = scalings(masks, None, "clas_xnli_hi", alpha="tuned")
    assert [(one.language, one.steering.alpha, one.steering.beta, one.steering.layers) for one in found] == [
        ("hi", 1.5, 0.3, (3,))
    ]
    assert skipped == {"de": "its strength is 0", "zh": "no strength is tuned for clas_xnli in it"}
    (same,), _ = scalings(masks, ["hi"], alpha=1.5, beta=0.3, gamma=0.1, layers="3")
    assert np.array_equal(found[0].factors, same.factors)
    (other,), _ = scalings(masks, ["hi"], "clas_xquad", alpha="tuned", layers="2-4", gamma=None)
    assert (other.steering.alpha, other.steering.layers, other.steering.gamma) == (-4, (2, 3, 4), 0.1)
    with pytest.raises(ClasError, match=r"several tasks \(clas_xnli, clas_xquad\).*--task"):
        scalings(masks, ["hi"], alpha="tuned")
    with pytest.raises(ClasError, match="no strengths tuned for 'belebele'"):
        scalings(masks, ["hi"], "belebele_hin_Deva", alpha="tuned")
    with pytest.raises(ClasError, match="language 'zh': no strength is tuned for clas_xnli"):
        scalings(masks, ["zh"], "clas_xnli", alpha="tuned")


def test_the_card_tells_what_it_is(source: Path, source_masks: MaskSet, tmp_path: Path) -> None:
    text = (write("ia3", source_masks, source, tmp_path / "ia3") / "README.md").read_text()
    assert text.startswith("---\nlanguage:\n- hi\nlibrary_name: peft\n")
    assert "layers 2, 3, 4" in text
    assert "Apache-2.0" in text
    assert (
        adapter_config(scalings(source_masks, ["hi"], alpha=1)[0][0], outline(str(source), source_masks))["fan_in_fan_out"]
        is False
    )
