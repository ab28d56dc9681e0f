"""The plan of a study: what is counted is what is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from transformers import PreTrainedTokenizerFast

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.study.costs import Speed, Work, calibrate, computed, work_of
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.study.stages import StudyStages

SHAPE = {"parameters": 1e9, "layers": 2, "hidden_size": 8, "neurons": 8, "vocabulary": 9, "kv_heads": 1, "head_size": 8}


def stages(checkpoint: Path, folder: Path, **changes: Any) -> StudyStages:
    recipe = {
        "name": "small",
        "model": str(checkpoint),
        "device": "cpu",
        "shape": SHAPE,
        "profile": {"samples": 3, "languages": ["en", "hi"], "max_tokens": 50},
        "tune": {"alphas": [-1, 1], "objective": "loglikelihood", "limit": 4},
        "evaluate": {"batch_size": 4, "runs": {"hf": {}, "clas": {"alpha": 1}}},
        "analyse": {"geometry_samples": 2},
        "parts": {
            "nli": {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi"], "limit": 5},
            "qa": {"corpus": "mini", "evaluate": ["clas_mini_qa_hi", "clas_mini_qa_en"], "limit": 6},
        },
        **changes,
    }
    return StudyStages(StudyRecipe.model_validate(recipe), folder, Progress(disable=True))


def works(made: StudyStages, tokenizer: Any) -> dict[str, Work]:
    return {work.stage: work for work in work_of(made, tokenizer)}


def test_passes_and_tokens_are_those_of_a_loop(checkpoint: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    made = stages(checkpoint, tmp_path)
    found = works(made, tokenizer)
    # Two corpora of 3 items in 2 languages, and the first one's halves of 2 and 1 items.
    assert found["profile"].passes == 2 * 3 * 2 + 3 * 2
    # 3 choices of 4 items under 3 strengths.
    assert found["tune"].passes == 3 * 4 * 3
    # 2 runs of 5 items with 3 choices, and of 6 questions in 2 languages.
    assert found["evaluate"].passes == 2 * (5 * 3 + 6 * 2)
    assert found["analyse"].passes == 2 * 2 * (2 * 2)
    assert not any(work.unknown for work in found.values())

    texts = [line for part in ("nli", "qa") for lines in made.texts(part).texts.values() for line in lines]
    halves = [line for part, half in made.halves.values() for lines in made.texts(part, half).texts.values() for line in lines]
    assert found["profile"].tokens == sum(min(len(tokenizer(line)["input_ids"]), 50) for line in texts + halves)

    task = made.tasks(["clas_mini_nli_hi"])["clas_mini_nli_hi"]
    task.build_all_requests(limit=5, rank=0, world_size=1)
    contexts = {request.args[0] for request in task.instances}
    assert len(contexts) == 5
    assert found["evaluate"].scored == 2 * sum(len(tokenizer(context)["input_ids"]) for context in contexts)
    longest = made.tasks(["clas_mini_qa_hi"])["clas_mini_qa_hi"].config.generation_kwargs["max_gen_toks"]
    assert found["evaluate"].steps == 2 * 2 * 2 * longest  # runs, languages, batches of 4


def test_what_cannot_be_loaded_is_said_and_not_counted(checkpoint: Path, tmp_path: Path) -> None:
    parts = {
        "nli": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi", "no_such_task"], "limit": 2},
        "lost": {"corpus": str(tmp_path / "nowhere"), "evaluate": ["clas_mini_nli_hi"], "limit": 2},
    }
    found = works(stages(checkpoint, tmp_path, parts=parts), None)
    assert "no_such_task" in " ".join(found["evaluate"].unknown)
    assert "lost" in " ".join(found["profile"].unknown)
    assert "tune" not in found
    assert found["evaluate"].passes == 2 * 2 * 3 * 2


def test_the_calibration_is_kept_and_measured_again_for_another_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_EVAL_CLAS_CACHE", str(tmp_path / "cache"))
    made = stages(checkpoint, tmp_path)
    speed = calibrate(made)
    assert speed.scored > 0
    assert speed.prompted > 0
    assert speed.seconds(Work("", "", scored=2, prompted=3)) == pytest.approx(2 * speed.scored + 3 * speed.prompted)
    monkeypatch.setattr("lm_eval_clas.harness.fast_lm.FastLM", None)  # nothing is loaded
    assert calibrate(made) == speed
    (kept,) = (tmp_path / "cache" / "calibration").iterdir()
    kept.write_text("{")
    with pytest.raises(TypeError):
        calibrate(made)


def test_the_smallest_gain_is_told_with_what_is_assumed(checkpoint: Path, tmp_path: Path) -> None:
    parts: dict[str, dict[str, Any]] = {
        "nli": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi", "clas_mini_nli_de"]},
        "qa": {"corpus": "mini", "evaluate": ["clas_mini_qa_hi"], "limit": 12},
        "few": {"corpus": "mini", "evaluate": ["clas_mini_nli_sw"], "limit": 9},
    }
    told = works(stages(checkpoint, tmp_path, parts=parts), None)["evaluate"].gains
    # By hand: 16 clusters of 3, t of 15 degrees of freedom.
    gain = 100 * (0.1 * (1 + 2 * 0.2) / 48) ** 0.5 * (2.1314 + 0.8662)
    assert told == [
        f"clas_mini_nli: 48 items a language in 16 clusters (by 'cluster') show a gain of {gain:.1f} points in a language in "
        f"80 % of cases (p < 0.05, before Holm), and one of the average of 2 languages of {gain / 2**0.5:.1f} (if languages "
        f"gain independently) to {gain:.1f}, assuming that 10 % of answers change, and gains correlate by 0.2 within clusters.",
        "clas_mini_qa: 12 items a language show a gain of 17.8 points in a language in 80 % of cases (p < 0.05, before "
        "Holm), assuming that the gain of an item has a standard deviation of 20 points.",
        "clas_mini_nli: 3 clusters of items are too few to show any gain; plan more.",
    ]
    parts["nli"]["evaluate"] = ["clas_mini_nli_en", *parts["nli"]["evaluate"]]
    parts["few"]["evaluate"] = ["clas_mini_nli_en"]  # never steered
    with_anchor = works(stages(checkpoint, tmp_path, parts=parts), None)["evaluate"].gains
    assert with_anchor == [
        f"clas_mini_nli: 48 items a language in 16 clusters (by 'cluster') show a gain of {gain:.1f} points in a language in "
        f"80 % of cases (p < 0.05, before Holm), and one of the average of 3 languages, the anchor among them, of "
        f"{2**0.5 * gain / 3:.1f} (if languages gain independently) to {2 * gain / 3:.1f}, assuming that 10 % of answers "
        "change, and gains correlate by 0.2 within clusters.",
        told[1],
    ]
    apart = works(stages(checkpoint, tmp_path, parts=parts, cluster="none"), None)["evaluate"].gains
    assert apart[0].startswith("clas_mini_nli: 48 items a language show a gain of ")
    with pytest.raises(ClasError, match="48 of 48 documents of clas_mini_nli_en have no field 'passage'"):
        works(stages(checkpoint, tmp_path, parts=parts, cluster="passage"), None)


def test_time_is_computed_from_the_shape(checkpoint: Path, tmp_path: Path) -> None:
    made = stages(checkpoint, tmp_path)
    work = Work("", "", scored=1000, prompted=500, steps=7)
    assert computed(made.recipe, work) == ModelShape(**SHAPE).seconds(1500, 7)
    assert computed(made.recipe.model_copy(update={"shape": None}), work) is None
    assert Speed(1, 2).seconds(work) == 2000
