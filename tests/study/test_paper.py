"""`clas paper` on a small model: it ends, skips what is done, goes on after a stop, and keeps what a change does not touch."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml
from prompts_seen import prompts_of
from rich.console import Console
from small_models import Run

from lm_eval_clas import CLASLM
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.geometry.causes import Causes
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.agreement import Stability
from lm_eval_clas.study import evaluation
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.study.stages import StudyStages

PART = {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi", "clas_mini_nli_de"], "limit": 4}


@pytest.fixture
def recipe(checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    """Everything that a recipe can ask for, in the size of a test."""
    return {
        "name": "small",
        "model": str(checkpoint),
        "device": "cpu",
        "profile": {"samples": 6, "languages": ["en", "hi", "de"], "max_tokens": 60},
        "masks": {"bridge": "2-4", "threshold": 0.005},
        "variants": {"lape": {"specific": "lape"}, "from-hi": {"anchor": "hi"}},
        "tune": {"alphas": [-2, 2], "objective": "loglikelihood", "limit": 4},
        "evaluate": {
            "batch_size": 4,
            "runs": {
                "hf": {},
                "clas": {"alpha": "tuned"},
                "uniform": {"alpha": "tuned", "method": "uniform"},
                "random-0": {"alpha": "tuned", "method": "random", "seed": 0},
                "random-1": {"alpha": "tuned", "method": "random", "seed": 1},
                "lape": {"alpha": "tuned", "variant": "lape"},
                "from-hi": {"alpha": 2, "variant": "from-hi"},
            },
        },
        "analyse": {"geometry_samples": 4},
        "parts": {
            "nli": PART,
            "qa": {**PART, "tune": ["clas_mini_qa_hi"], "evaluate": ["clas_mini_qa_hi", "clas_mini_qa_de"], "limit": 2},
        },
    }


def write(recipe: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_study_ends_and_is_skipped_the_second_time(
    clas: Run, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(recipe, tmp_path), tmp_path / "study"
    places, move = [], JobProgress._move

    def seen(progress: JobProgress, task: Any) -> None:
        places.append(progress._place())
        move(progress, task)

    with monkeypatch.context() as patch:
        patch.setattr(JobProgress, "_move", seen)
        code, text, error = clas("paper", path, "--out", out)
    assert code == 0, error
    assert places == sorted(places)  # the bar of the whole job goes forward of itself, and does not wait to be caught up
    for stage in range(7):
        assert any(0.001 < 7 * place - stage < 0.999 for place in places) == (stage in (0, 2, 3, 4)), stage
    assert "tokens" in text
    assert "In all" in text

    nli = Comparison.model_validate_json((out / "tables" / "clas_mini_nli.json").read_bytes())
    assert [row.kind for row in nli.rows] == ["baseline", "control", "control", "method", "method", "method"]
    assert nli.languages == ["de", "hi"]
    assert {row.cells["hi"].items for row in nli.rows} == {4}
    assert (out / "tables" / "clas_mini_qa.tex").is_file()
    against = Comparison.model_validate_json((out / "tables" / "clas_mini_nli-against-uniform.json").read_bytes())
    assert against.baseline == "uniform"
    gained = {row.label: row.gain for row in nli.rows}
    assert next(row.gain for row in against.rows if row.label == "clas") == pytest.approx(
        (gained["clas"] or 0) - (gained["uniform"] or 0)
    )
    masks = MaskSet.load(out / "tune" / "nli" / "masks")
    assert set(masks.config.tuned) == {"clas_mini_nli"}
    assert masks.means is not None
    for part in ("nli", "qa"):
        geometry = Geometry.model_validate_json((out / "analysis" / part / "geometry.json").read_bytes())
        assert geometry.masks_hash == MaskSet.load(out / "masks" / part).hash
        assert Causes.model_validate_json((out / "analysis" / part / "causes.json").read_bytes()).run == "clas"
    lape = MaskSet.load(out / "tune" / "nli" / "variants" / "lape" / "masks")
    assert lape.config.specific != "counts"
    own = [[one.gain for one in found.config.tuned["clas_mini_nli"]["hi"].measured] for found in (masks, lape)]
    assert len(own[0]) == len(own[1])
    assert own[0] != own[1]  # strengths were tried on these masks
    steering = next(row.steering for row in nli.rows if row.label == "from-hi")
    assert steering["anchor"] == "hi"
    assert steering["left_alone"]["hi"] == "anchor"
    stability = Stability.model_validate_json((out / "analysis" / "stability.json").read_bytes())
    assert stability.ceiling
    stage = json.loads((out / "stages" / "evaluate.json").read_bytes())
    assert len(stage["commands"]) == 14
    assert stage["commands"][2].startswith("lm_eval --model hf-clas --model_args pretrained=")
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "clas_mini_nli" in html
    assert "clas_mini_qa" in html

    before = times(out)
    code, text, error = clas("paper", path, "--out", out)
    assert code == 0, error
    assert text.count("unchanged, skipped") == 7
    after = times(out)
    assert [name for name in after if after[name] != before.get(name)] == ["recipe.yaml"]


@pytest.mark.usefixtures("sketched")
def test_rivals_get_what_they_need_and_strengths_of_their_own(clas: Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["evaluate"]["runs"] = {
        "hf": {},
        "clas": {"alpha": "tuned"},
        "diffmean": {"alpha": "tuned", "method": "diffmean"},
        "anywhere": {"alpha": "tuned", "method": "random-direction", "seed": 1},
        "incline": {"alpha": 0.1, "method": "incline"},
        "arithmetic": {"alpha": 1, "method": "arithmetic", "variant": "lape"},
    }
    recipe["tune"]["method_alphas"] = {"diffmean": [-0.3, 0.4]}
    part = {**PART, "evaluate": ["clas_mini_nli_hi"], "limit": 2}
    small = {
        **recipe,
        "parts": {"nli": part},
        "variants": {"lape": {"specific": "lape"}},
        "analyse": {"geometry_samples": None},
    }
    small["profile"] = {**recipe["profile"], "halves": False}
    path, out = write(small, tmp_path), tmp_path / "study"
    code, _, error = clas("paper", path, "--out", out)
    assert code == 0, error
    masks = MaskSet.load(out / "tune" / "nli" / "masks")
    assert set(masks.config.tuned_methods) == {"diffmean"}
    tried = masks.config.tuned_methods["diffmean"]["clas_mini_nli"]["hi"].measured
    assert [one.alpha for one in tried] == [0, -0.3, 0.4]
    assert masks.residual is not None
    assert not (out / "tune" / "nli" / "variants").exists()  # no run with its masks has tuned strengths
    table = Comparison.model_validate_json((out / "tables" / "clas_mini_nli.json").read_bytes())
    kinds = {row.label: row.kind for row in table.rows}
    assert kinds["anywhere"] == "control"
    assert kinds["diffmean"] == kinds["incline"] == kinds["arithmetic"] == "method"
    steering = {row.label: row.steering for row in table.rows}
    assert steering["anywhere"]["tuned"] == steering["diffmean"]["tuned"] != steering["clas"]["tuned"]
    commands = json.loads((out / "stages" / "tune.json").read_bytes())["commands"]
    assert [("--method diffmean" in one, "--alphas=-0.3,0.4" in one) for one in commands] == [(False, False), (True, True)]
    profiles = json.loads((out / "stages" / "profile.json").read_bytes())["commands"]
    assert [("--site residual" in one) for one in profiles] == [False, True]
    code, text, error = clas("paper", path, "--out", out)
    assert code == 0, error
    assert text.count("unchanged, skipped") == 7
    assert "diffmean" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("sketched")
def test_what_a_run_does_not_steer_is_answered_once(
    clas: Run, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anchor's requests, those of a language at 0, and neither those of a model that steers nothing, nor of another way."""
    names = [f"clas_mini_{kind}_{language}" for kind in ("nli", "qa") for language in ("en", "hi", "de")]
    strengths = tmp_path / "alpha.json"
    strengths.write_text('{"hi": 2, "de": 0}')
    recipe["evaluate"]["runs"] = {
        "clas": {"alpha": str(strengths)},
        "stock": {"alpha": str(strengths), "scoring": "stock"},
        "zero": {"alpha": 0},
        "hf": {},
    }
    recipe["parts"] = {"all": {"corpus": "mini", "evaluate": names, "limit": 2}}
    recipe["analyse"]["geometry_samples"] = None
    path, asked = write(recipe, tmp_path), []
    for kind in ("loglikelihood", "generate_until"):
        real = getattr(FastLM, kind)

        def answer(lm: Any, requests: Any, *more: Any, real: Any = real, **options: Any) -> Any:
            asked.extend(requests)
            return real(lm, requests, *more, **options)

        monkeypatch.setattr(FastLM, kind, wraps(real)(answer))
    assert clas("paper", path, "--out", tmp_path / "study")[0] == 0
    results = tmp_path / "study" / "results"

    def told(run: str, task: str) -> dict[str, Any]:
        (found,) = (results / run / task).rglob("results_*.json")
        return dict(json.loads(found.read_bytes())["config"]["clas"])

    def answers(run: str, task: str) -> Any:
        (found,) = (results / run / task).rglob("samples_*.jsonl")
        return [json.loads(line)["resps"] for line in found.read_text("utf-8").splitlines()]

    counts = {}
    for name in names:
        language = name[-2:]
        for run in ("clas", "stock"):
            one = told(run, name)["languages"][language]
            counts[run, name] = one.get("from_cache", 0), one["requests"]
        assert counts["stock", name][0] == 0
        assert counts["clas", name][0] == (0 if language == "hi" else counts["clas", name][1])
        assert (answers("clas", name) == answers("hf", name)) or language == "hi"
    steered = sum(counts["clas", name][1] for name in names if name.endswith("hi"))
    whole = sum(counts["clas", name][1] for name in names)
    assert len(asked) == 3 * whole + steered


@pytest.mark.usefixtures("sketched")
def test_a_stopped_evaluation_goes_on_and_a_change_keeps_the_rest(
    clas: Run, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["parts"] = {"nli": {**PART, "tune": []}}
    recipe["evaluate"]["runs"] = {"hf": {}, "clas": {"alpha": 2}}
    recipe["analyse"]["geometry_samples"] = None
    path = write(recipe, tmp_path)
    assert clas("paper", path, "--out", tmp_path / "undisturbed")[0] == 0

    real, evaluated = evaluation._results, []

    def stopped(*arguments: Any) -> Any:
        evaluated.append(arguments[1])
        if len(evaluated) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(evaluation, "_results", stopped)
    out = tmp_path / "stopped"
    code, _, error = clas("paper", path, "--out", out)
    assert code == 130
    assert "goes on from there" in error
    code, _, error = clas("paper", path, "--out", out)
    assert code == 0, error
    assert len(evaluated) == 3 + 2  # of four; the third was begun twice
    for name in ("clas_mini_nli.json", "clas_mini_nli.tex", "clas_mini_nli.csv", "clas_mini_nli.md"):
        assert (out / "tables" / name).read_bytes() == (tmp_path / "undisturbed" / "tables" / name).read_bytes()

    before = times(out / "results")
    controls = {label: {"alpha": 2, "method": label} for label in ("uniform", "random")}
    recipe["evaluate"]["runs"] = {"hf": {}, **controls}
    recipe["parts"]["nli"]["runs"] = {"random": None}  # it is left out there
    recipe["analyse"]["run"] = "uniform"
    code, _, error = clas("paper", write(recipe, tmp_path), "--out", out)
    assert code == 0, error
    assert len(evaluated) == 5 + 2
    after = times(out / "results")
    kept = [name for name in before if name.startswith("hf/")]
    assert kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name.partition("/")[0] for name in after} == {"hf", "uniform"}


@pytest.mark.parametrize(
    ("tune", "evaluate"),
    [({}, {}), ({}, {"num_fewshot": 1, "apply_chat_template": True}), ({"num_fewshot": 0}, {"num_fewshot": 1})],
)
def test_a_study_tunes_with_the_prompts_of_its_evaluation_unless_it_has_others(
    recipe: dict[str, Any],
    chatty: Path,
    masks: MaskSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tune: dict[str, Any],
    evaluate: dict[str, Any],
) -> None:
    recipe |= {"model": str(chatty), "variants": {}, "parts": {"nli": {**PART, "evaluate": ["clas_mini_nli_hi"]}}}
    recipe["tune"] |= tune
    recipe["evaluate"] |= {**evaluate, "runs": {"hf": {}, "clas": {"alpha": "tuned"}}}
    with JobProgress(Console(quiet=True)) as progress:
        stages = StudyStages(StudyRecipe.model_validate(recipe), tmp_path, progress)
        masks.save(stages.made_masks("nli"))
        inputs = stages._tune_inputs()
        tuned, evaluated = prompts_of(FastLM, monkeypatch), prompts_of(CLASLM, monkeypatch)
        (command,) = stages._tune()
        prompts = set(tuned)
        stages._evaluate()
    assert len(prompts) == 4
    assert ({*evaluated} == prompts) == (not tune)
    assert all(("<user>" in prompt) == evaluate.get("apply_chat_template", False) for prompt in prompts)
    assert ("--num-fewshot" in command) == bool(evaluate)
    assert ("--apply-chat-template" in command) == evaluate.get("apply_chat_template", False)
    other = StudyRecipe.model_validate(recipe | {"evaluate": recipe["evaluate"] | {"num_fewshot": 3}})
    assert (StudyStages(other, tmp_path, progress)._tune_inputs() == inputs) == bool(tune)


def test_a_model_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClasError, match=r"Cannot load the model 'none/such' with hf-clas: .+"):
        evaluation.evaluate_run(
            *(tmp_path, {"pretrained": "none/such"}, None, {"a_task": None}),
            limits={"a_task": 1},
            batch_size=1,
            report=lambda _: None,
        )
    assert not any(tmp_path.iterdir())


def test_a_stage_without_what_it_needs_is_refused(clas: Run, recipe: dict[str, Any], tmp_path: Path) -> None:
    path, out = write(recipe, tmp_path), tmp_path / "study"
    code, text, error = clas("paper", path, "--out", out, "--plan")
    assert code == 0, error
    assert not out.exists()
    assert "evaluate" in text
    code, _, error = clas("paper", path, "--out", out, "--only", "tables")
    assert code == 2
    assert "earlier stages give" in error
    code, _, error = clas("paper", path, "--out", out, "--only", "cook")
    assert code == 2
    assert "profile, masks, tune" in error
