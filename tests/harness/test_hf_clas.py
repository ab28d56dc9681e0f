"""`hf-clas` inside the harness: equal to `hf` where nothing is steered, and routed by language where something is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from requests_made import KINDS, TEXTS, clas, requests
from small_models import make_model
from strengths_made import with_strengths
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.disk.files import shipped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"masks": None}, {"alpha": 0}, {"method": "off"}])
def test_unsteered_equals_hf_float_for_float(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str, options: dict[str, Any]
) -> None:
    plain = HFLM(make_model(), tokenizer=tokenizer, batch_size=3)
    mine = clas(tokenizer, **{"masks": masks, **options})
    assert getattr(mine, kind)(requests(kind)) == getattr(plain, kind)(requests(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_english_equals_hf_float_for_float(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str) -> None:
    plain = HFLM(make_model(), tokenizer=tokenizer, batch_size=3)
    english = requests(kind, ("en",))
    assert getattr(clas(tokenizer, masks, alpha=5), kind)(english) == getattr(plain, kind)(english)


def test_a_pattern_of_modules_is_told_where_one_was_given(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    assert "projection" not in clas(tokenizer, masks, alpha=4).steering_info()
    pattern = "*.mlp.down_proj"
    assert clas(tokenizer, masks, alpha=4, projection=pattern).steering_info()["projection"] == pattern


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_list_answers_each_language_as_if_alone_and_in_order(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str
) -> None:
    lm = clas(tokenizer, masks, alpha=4)
    mixed = requests(kind)
    together = getattr(lm, kind)(mixed)
    assert len(together) == len(mixed)
    for language in TEXTS:
        positions = [i for i, request in enumerate(mixed) if request.task_name == f"test_{language}"]
        alone = getattr(lm, kind)([mixed[i] for i in positions])
        assert [together[i] for i in positions] == alone
        unsteered = getattr(clas(tokenizer, masks, alpha=0), kind)([mixed[i] for i in positions])
        assert (alone == unsteered) == (language == "en")


@pytest.mark.parametrize("kind", KINDS)
def test_steered_equals_hf_with_scaled_weights(tokenizer: PreTrainedTokenizerFast, masks: MaskSet, kind: str) -> None:
    lm = clas(tokenizer, masks, alpha=-2)
    scaled = make_model()
    with torch.no_grad():
        for layer, projection in enumerate(find_projections(scaled)):
            projection.module.weight.mul_(lm._steerer.factors("hi")[layer])
    hindi = requests(kind, ("hi",))
    expected = getattr(HFLM(scaled, tokenizer=tokenizer, batch_size=3), kind)(hindi)
    got = getattr(lm, kind)(hindi)
    if kind == "generate_until":
        assert got == expected
    else:
        numbers = [one[0] if isinstance(one, tuple) else one for one in got]
        assert numbers == pytest.approx([one[0] if isinstance(one, tuple) else one for one in expected], rel=1e-4)


def test_automatic_batch_size_serves_all_languages(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    automatic = CLASLM(
        make_model(), masks=masks, tokenizer=tokenizer, batch_size="auto", max_batch_size=4, max_length=128, alpha=2
    )
    fixed = CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size=4, max_length=128, alpha=2)
    for kind in KINDS:
        for one, other in zip(getattr(automatic, kind)(requests(kind)), getattr(fixed, kind)(requests(kind)), strict=True):
            assert one == pytest.approx(other, rel=1e-4) if kind != "generate_until" else one == other


def test_automatic_batch_sizes_in_parts_serve_small_groups(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    lm = CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size="auto:4", max_batch_size=4, max_length=128)
    lone = [Instance("loglikelihood", {}, ("चाय", " yes"), 0, ("test_hi", 0, 1))]
    assert len(lm.loglikelihood(lone + requests("loglikelihood", ("en", "de")))) == 13
    assert lm.batch_schedule == 4


def test_a_forced_language_steers_everything(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    english = requests("loglikelihood", ("en",))
    forced = clas(tokenizer, masks, alpha=4, language="hin_Deva")
    assert forced.loglikelihood(english) != clas(tokenizer, masks, alpha=4).loglikelihood(english)
    assert forced.steering_info()["languages"]["hi"]["recognized"] == {"forced": len(english)}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What hf-clas logs, also once the harness has taken its loggers off the root."""
    ours = logging.getLogger("lm_eval.models.hf_clas")
    caplog.set_level("INFO", logger=ours.name)
    propagate, ours.propagate = ours.propagate, False
    ours.addHandler(caplog.handler)
    yield caplog
    ours.removeHandler(caplog.handler)
    ours.propagate = propagate


def test_unseen_languages_are_left_alone_or_share(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, log: pytest.LogCaptureFixture
) -> None:
    french = [Instance("loglikelihood", {}, ("Le thé pousse.", " oui"), 0, ("test_fr", 0, 1))]
    plain = clas(tokenizer, masks, alpha=0).loglikelihood(french)
    off = clas(tokenizer, masks, alpha=4)
    assert off.loglikelihood(french) == plain
    assert off.loglikelihood(french) == plain
    assert sum("do not know language 'fr'" in message for message in log.messages) == 1
    assert off.steering_info()["left_alone"] == {"fr": "not in the masks"}
    shared = clas(tokenizer, masks, alpha=4, unseen="shared")
    partial_only = clas(tokenizer, masks, alpha=4, gamma=0, language="hi")
    assert shared.loglikelihood(french) == partial_only.loglikelihood(french)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"alpha": {"hi": 2, "default": 0}}, "alpha is 0"),
        ({"beta": 0}, "beta is 0"),
        ({"beta": 0, "alpha": {"hi": 0, "default": 2}}, "beta is 0"),
        ({"method": "uniform", "beta": 0}, "beta is 0"),
    ],
)
def test_unseen_languages_that_nothing_changes_are_told_as_left_alone(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, options: dict[str, Any], why: str, log: pytest.LogCaptureFixture
) -> None:
    french = [Instance("loglikelihood", {}, ("Le thé pousse.", " oui"), 0, ("test_fr", 0, 1))]
    lm = clas(tokenizer, masks, unseen="shared", **options)
    assert lm.loglikelihood(french) == clas(tokenizer, masks, alpha=0).loglikelihood(french)
    assert lm.get_model_info()["clas"]["left_alone"] == {"fr": why}
    assert "steered requests: none" in log.messages[-1]


def test_languages_tuned_to_0_are_told_as_left_alone(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, log: pytest.LogCaptureFixture
) -> None:
    masks = with_strengths(masks, {"test": {"hi": 0.0, "de": 2.0}})
    lm = clas(tokenizer, masks, alpha="tuned")
    lm.loglikelihood(requests("loglikelihood", ("hi", "de")))
    assert lm.get_model_info()["clas"]["left_alone"] == {"hi in test": "tuned to 0"}
    assert "; steered requests: de in test 6 (task name); left alone: hi in test (tuned to 0)" in log.messages[-1]


def test_the_results_file_says_what_was_steered(
    checkpoint: Path, masks: MaskSet, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    masks.save(tmp_path / "masks")
    results = simple_evaluate(
        model="hf-clas",
        model_args=f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=2,layers=2-3",
        tasks=["clas_mini_qa_hi", "clas_mini_nli_en", "clas_mini_qa_fr"],
        limit=2,
        bootstrap_iters=0,
        device="cpu",
        task_manager=TaskManager(include_path=str(shipped("tasks"))),
    )
    info = json.loads(json.dumps(results["config"]["clas"]))
    assert info["masks_hash"] == masks.hash
    assert (info["alpha"], info["beta"], info["gamma"], info["layers"], info["method"]) == (2, 0.4, 0.2, [2, 3], "clas")
    assert info["languages"] == {
        "en": {"requests": 6, "recognized": {"doc": 6}},
        "fr": {"requests": 2, "recognized": {"doc": 2}},
        "hi": {"requests": 2, "recognized": {"doc": 2}},
    }
    assert info["left_alone"] == {"en": "anchor", "fr": "not in the masks"}
    closing = [message for message in log.messages if message.startswith("hf-clas: method")]
    assert len(closing) == 1
    assert masks.hash in closing[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unseen": "guess"}, "unseen must be one of off, shared"),
        ({"unseen": "shared", "partial_scope": "own"}, "drop partial_scope"),
        ({"unseen": "shared", "alpha": {"hi": 1, "de": 1, "zh": 2}}, "add a 'default'"),
        ({"language": "klingonish!"}, "is not a language.*; give a code or a name"),
        ({"language": "fr"}, "no language 'fr'"),
        ({"alpha": "much"}, "alpha must be a number"),
        ({"masks": None, "alpha": 2}, "alpha without masks="),
        ({"masks": "", "unseen": "shared"}, "unseen without masks="),
        ({"seed": -1, "method": "random"}, "whole number from 0 on"),
        ({"layers": 2.5}, "range like 24-29"),
        ({"masks": "nowhere"}, "no masks at 'nowhere'"),
    ],
)
def test_bad_options_are_one_sentence(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClasError, match=message):
        clas(tokenizer, **{"masks": masks, **options})


def test_options_are_checked_before_the_model_is_loaded(masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="method must be one of"):
        CLASLM("there/is-no-such-model", masks=masks, method="magic")


def test_few_shot_and_chat_template_go_through(checkpoint: Path, masks: MaskSet, tokenizer: PreTrainedTokenizerFast) -> None:
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    chatty = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    chatty.chat_template = template
    scores = []
    for lm in (
        HFLM(make_model(), tokenizer=chatty, batch_size=2),
        CLASLM(make_model(), masks=masks, tokenizer=chatty, batch_size=2, alpha=0, scoring="stock"),
    ):
        results = simple_evaluate(
            model=lm,
            tasks=["clas_mini_nli_hi", "clas_mini_qa_de"],
            num_fewshot=1,
            limit=2,
            apply_chat_template=True,
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(shipped("tasks"))),
        )
        scores.append([[sample["filtered_resps"] for sample in group] for group in results["samples"].values()])
    assert scores[0] == scores[1]


def test_a_peft_adapter_on_disk_is_steered(checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    lora = peft.LoraConfig(target_modules=["down_proj"], r=2, init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(make_model(), lora).save_pretrained(tmp_path)
    hindi = requests("loglikelihood", ("hi",))
    arguments: dict[str, Any] = {"pretrained": str(checkpoint), "device": "cpu", "batch_size": 3}
    plain = HFLM(**arguments, peft=str(tmp_path)).loglikelihood(hindi)
    assert CLASLM(**arguments, peft=str(tmp_path), masks=masks, alpha=0, scoring="stock").loglikelihood(hindi) == plain
    steered = CLASLM(**arguments, peft=str(tmp_path), masks=masks, alpha=2).loglikelihood(hindi)
    assert steered != plain
    assert steered != CLASLM(**arguments, masks=masks, alpha=2).loglikelihood(hindi)


def test_devices_may_be_mapped(checkpoint: Path, masks: MaskSet) -> None:
    """device_map with a layer on disk: its factors go where its activation is."""
    hindi = requests("loglikelihood", ("hi",))
    whole = CLASLM(str(checkpoint), device="cpu", batch_size=3, masks=masks, alpha=2).loglikelihood(hindi)
    device_map = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    device_map |= {f"model.layers.{layer}": "disk" if layer == 3 else "cpu" for layer in range(6)}
    mapped = CLASLM(
        str(checkpoint), device="cpu", batch_size=3, masks=masks, alpha=2, device_map=device_map,
        offload_folder=str(checkpoint / "offload"),
    )  # fmt: skip
    assert mapped.loglikelihood(hindi) == whole
