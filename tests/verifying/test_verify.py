"""`clas verify`: right numbers stand, and numbers of another steering, of none, or edited ones do not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged_runs import logged_run
from small_models import FAMILIES, Run, make_model
from strengths_made import with_strengths

from lm_eval_clas import ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.verifying.merged_weights import merged

TASKS = ["clas_mini_nli_hi", "clas_mini_nli_en", "clas_mini_qa_de"]
Evaluate = Callable[..., Path]


@pytest.fixture(scope="module")
def evaluate(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Runs `hf-clas` as lm_eval does with --output_path and --log_samples, and gives the results file."""

    def run(masks: MaskSet, tasks: list[str] = TASKS, **options: Any) -> Path:
        return logged_run(tmp_path_factory.mktemp("run"), checkpoint, masks, tasks, **options)

    return run


@pytest.fixture(scope="module")
def results(evaluate: Evaluate, masks: MaskSet) -> Path:
    return evaluate(masks, alpha=-4)


def verified(clas: Run, path: Path, *options: object) -> tuple[int, dict[str, Any]]:
    code, out, error = clas("verify", path, "--device", "cpu", "--json", *options)
    assert code in (0, 1), error
    return code, json.loads(out)


def copied(path: Path, place: Path) -> Path:
    shutil.copytree(path.parent, place / "copy")
    return place / "copy" / path.name


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_right_numbers_stand(clas: Run, results: Path) -> None:
    before = {path: path.read_bytes() for path in results.parent.iterdir()}
    code, found = verified(clas, results)
    assert (code, found["stands"]) == (0, True)
    hindi, german = sorted(found["languages"], key=lambda one: -one["requests"])
    assert (hindi["language"], hindi["items"], hindi["requests"]) == ("hi", 3, 9)
    assert hindi["largest"] < 1e-3 < hindi["unsteered"]
    assert (german["language"], german["texts"], german["equal"]) == ("de", 3, 3)
    assert {path: path.read_bytes() for path in results.parent.iterdir()} == before


@pytest.mark.parametrize(("method", "alpha"), [("diffmean", 0.5), ("incline", 0.5), ("arithmetic", 3)])
def test_numbers_of_methods_that_add_stand(clas: Run, evaluate: Evaluate, full: MaskSet, method: str, alpha: float) -> None:
    path = evaluate(full, ["clas_mini_nli_hi"], method=method, alpha=alpha)
    code, found = verified(clas, path)
    assert (code, found["stands"]) == (0, True), found
    assert found["languages"][0]["largest"] < 1e-3 < found["languages"][0]["unsteered"]
    if method == "diffmean":
        edited(path, lambda content: content["config"]["clas"].update(residual_hash="0" * 16))
        code, _, error = clas("verify", path, "--device", "cpu")
        assert code == 2
        assert "was steered with residual 0000000000000000, and those of these masks are" in " ".join(error.split())


def test_the_table_and_the_verdict_are_printed(clas: Run, results: Path) -> None:
    code, out, _ = clas("verify", results, "--device", "cpu", "--items", 1)
    assert code == 0
    assert "The numbers stand." in out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"alpha": 2}, "log-likelihoods differ"),
        ({"specific_scope": "own", "partial_scope": "own"}, "log-likelihoods differ"),
        ({"witness": {"hi": {"factors_hash": "0" * 16}}}, "the factors are not those that the run's witness saw"),
    ],
)
def test_numbers_of_another_steering_do_not_stand(
    clas: Run, results: Path, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    path = edited(copied(results, tmp_path), lambda content: content["config"]["clas"].update(change))
    code, found = verified(clas, path)
    assert (code, found["stands"]) == (1, False)
    assert any(why in one["why"] for one in found["languages"])


@pytest.mark.parametrize("drawn", [{"do_sample": True}, {"temperature": 0.7}])
def test_what_was_sampled_is_not_computed_again(clas: Run, results: Path, tmp_path: Path, drawn: dict[str, Any]) -> None:
    path = copied(results, tmp_path)
    (samples,) = path.parent.glob("samples_clas_mini_qa_de_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        asked = line["arguments"]["gen_args_0"]["arg_1"]
        del asked["do_sample"]
        asked |= drawn
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    code, found = verified(clas, path)
    (german,) = (one for one in found["languages"] if one["language"] == "de")
    assert (code, german["requests"], german["note"]) == (0, 0, "all answers were sampled, and cannot be computed again")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_of_no_steering_do_not_stand(clas: Run, evaluate: Evaluate, results: Path, masks: MaskSet, dtype: str) -> None:
    unsteered = evaluate(masks, alpha=0, dtype=dtype, scoring="stock")  # whose texts are those of hf in every dtype
    clas_of = json.loads(results.read_text(encoding="utf-8"))["config"]["clas"]
    path = edited(unsteered, lambda content: content["config"].update(clas=clas_of))
    code, found = verified(clas, path, "--masks", results.parents[2] / "masks")
    assert code == 1
    assert all(one["why"] for one in found["languages"])
    (german,) = (one for one in found["languages"] if one["language"] == "de")
    assert german["equal_unsteered"] == 3
    assert "3 of 3 texts are those of the model without steering" in german["why"]


@pytest.mark.parametrize(
    "options", [{"method": "random", "seed": 3}, {"method": "int-mu"}, {"alpha": "tuned"}, {"language": "zh"}]
)
def test_every_kind_of_steering_is_verified(clas: Run, evaluate: Evaluate, profiled: Profile, options: dict[str, Any]) -> None:
    masks = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4", keep_means=True)
    if options.get("alpha") == "tuned":
        masks = with_strengths(masks, {"clas_mini_nli": {"hi": -3.0}, "clas_mini_qa": {"de": 0.0}})
    code, found = verified(clas, evaluate(masks, **{"alpha": 1, **options}))
    assert (code, found["stands"]) == (0, True), found
    names = {"tuned": ["hi in clas_mini_nli"], "int-mu": ["hi"], "zh": ["zh"]}  # German has no neurons of its own here
    told = next((names[one] for one in map(str, options.values()) if one in names), ["de", "hi"])
    assert sorted(one["language"] for one in found["languages"]) == told


def test_a_member_of_a_macrolanguage_is_verified_as_it_was_steered(clas: Run, evaluate: Evaluate, masks: MaskSet) -> None:
    """Chinese requests are steered as Cantonese, the only fitting language of these masks."""
    languages = ["yue" if one == "zh" else one for one in masks.languages]
    cantonese = dataclasses.replace(masks, config=masks.config.model_copy(update={"languages": languages}))
    code, found = verified(clas, evaluate(cantonese, ["clas_mini_nli_zh"], alpha=-4))
    assert (code, found["stands"]) == (0, True), found
    assert [(one["language"], one["requests"]) for one in found["languages"]] == [("yue", 9)]


@pytest.mark.parametrize(("pair", "language"), [("source", "de"), ("target", "hi")])
def test_a_pair_of_languages_is_verified_as_it_was_steered(
    clas: Run, evaluate: Evaluate, masks: MaskSet, tmp_path: Path, pair: str, language: str
) -> None:
    (tmp_path / "data.json").write_text(json.dumps([{"text": "Der Storch baut ein Nest.", "label": 0}] * 3))
    (tmp_path / "mt.yaml").write_text(
        "task: mt_de-hi\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\n"
        "doc_to_target: label\ndoc_to_choice: ['yes', 'no way']\nmetric_list:\n  - metric: acc\n"
        f"dataset_kwargs:\n  data_files:\n    test: {tmp_path / 'data.json'}\n"
    )
    code, found = verified(clas, evaluate(masks, ["mt_de-hi"], include=(tmp_path,), alpha=-4, pair=pair))
    assert (code, found["stands"]) == (0, True), found
    assert [one["language"] for one in found["languages"]] == [language]


def test_bfloat16_is_given_more_room(clas: Run, evaluate: Evaluate, masks: MaskSet) -> None:
    code, found = verified(clas, evaluate(masks, ["clas_mini_nli_hi"], alpha=-4, dtype="bfloat16"))
    assert code == 0, found


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: [one.unlink() for one in path.parent.glob("samples_*")], "run lm_eval again with --log_samples"),
        (lambda path: [one.write_text("{}\n") for one in path.parent.glob("samples_*")], "is damaged or has another form"),
        (lambda path: next(path.parent.glob("samples_*nli_hi*")).unlink(), "that its samples do not have"),
        (lambda path: path.write_text("{}"), "is no results file"),
        (lambda path: path.unlink(), "There is no file"),
        (lambda path: edited(path, lambda one: one["config"]["clas"].update(method="off")), "tells of no steering"),
        (lambda path: edited(path, lambda one: one["config"].pop("clas")), "tells of no steering"),
        (lambda path: edited(path, lambda one: one["config"]["clas"].update(scoring="vllm")), "is of vllm-clas, which takes"),
        (lambda path: edited(path, lambda one: one["config"]["clas"].update(masks_hash="x")), "give --masks those"),
        (lambda path: edited(path, lambda one: one["config"].update(model_args={})), "does not tell where its masks are"),
    ],
)  # fmt: skip
def test_what_cannot_be_verified_is_one_sentence(
    clas: Run, results: Path, tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    path = copied(results, tmp_path)
    damage(path)
    code, _, error = clas("verify", path, "--device", "cpu")
    assert code == 2
    assert sentence in error.replace("\n", " ")
    assert "Traceback" not in error


@pytest.mark.parametrize("family", [*FAMILIES, "lora"])
def test_merged_weights_are_the_hooks_function(masks: MaskSet, profiled: Profile, family: str) -> None:
    model: Any = make_model("llama" if family == "lora" else family)
    if family == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=["down_proj"], init_lora_weights=False, r=2)).eval()
    projections = find_projections(model)
    torch.manual_seed(0)
    neurons = projections[0].neurons
    factors, shifts = torch.rand(6, neurons) * 3 - 1, torch.randn(6, neurons)
    inputs = torch.arange(4, 24)[None]
    before = model(input_ids=inputs).logits
    handles = [
        one.module.register_forward_pre_hook(lambda _, args, i=i: (torch.addcmul(shifts[i], args[0], factors[i]),))
        for i, one in enumerate(projections)
    ]
    hooked = model(input_ids=inputs).logits
    for handle in handles:
        handle.remove()
    with merged(projections, Intervention(factors.numpy(), None if shifts is None else shifts.numpy())):
        assert torch.allclose(model(input_ids=inputs).logits, hooked, rtol=1e-3, atol=1e-3)
    assert torch.equal(model(input_ids=inputs).logits, before)
    assert not torch.allclose(hooked, before, atol=1e-2)


def test_weights_of_eight_bits_are_not_scaled_in_place() -> None:
    """To torch, they are floating point numbers."""
    model = make_model()
    (first, *_) = projections = find_projections(model)
    first.module.weight = torch.nn.Parameter(first.module.weight.to(torch.float8_e4m3fn), requires_grad=False)
    factors = np.ones((len(projections), first.neurons), dtype=np.float32)
    with pytest.raises(ClasError, match="as they are quantised or wrapped"), merged(projections, Intervention(factors)):
        pass
