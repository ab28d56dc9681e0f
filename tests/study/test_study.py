"""Studies: stages run once, again where their inputs change, and go on after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from made_runs import STEERED, write_run
from rich.console import Console
from small_models import make_model
from strengths_made import with_strengths

from lm_eval_clas import MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.study.analyses import _steering, alphas_of_run
from lm_eval_clas.study.plan.stage_work import strengths
from lm_eval_clas.study.recipe import StudyRecipe, shipped_recipes
from lm_eval_clas.study.record import Stage, Study, content_hash, hash_of
from lm_eval_clas.study.stages import StudyStages
from lm_eval_clas.tuning.measuring import grid

MINIMAL = """
name: x
model: m
evaluate: {runs: {hf: {}, clas: {alpha: 1}}}
parts: {p: {corpus: mini, evaluate: [t]}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """In a folder that is claimed, as `clas paper` does."""
    with claimed(tmp_path):
        yield Study(tmp_path)


class Log:
    """A stage that copies its input to its output, and counts."""

    def __init__(self, study: Study) -> None:
        self.study, self.value, self.runs, self.killed = study, 1, 0, False

    def stage(self) -> Stage:
        return Stage("copy", lambda: [self.value], self._run, ["out"])

    def _run(self) -> list[str]:
        self.runs += 1
        out = self.study.folder / "out"
        write_text(out / f"part-{self.value}", "half")
        if self.killed:
            raise KeyboardInterrupt
        write_text(out / "whole", str(self.value))
        return ["cp a b"]


def test_clusters_that_a_recipe_does_not_name_leave_what_was_tuned_and_evaluated(tmp_path: Path) -> None:
    """A study of before there were clusters gets new tables and a new report: its other stages have the same inputs."""
    recipes = [StudyRecipe.model_validate({**yaml.safe_load(MINIMAL), **more}) for more in ({}, {"cluster": "context"})]
    made = [StudyStages(recipe, tmp_path, JobProgress(Console(quiet=True))) for recipe in recipes]
    for name, same in {"profile": True, "masks": True, "evaluate": True, "analyse": True, "tables": False}.items():
        with pytest.MonkeyPatch.context() as patch:
            for name_of in ("masks_identity", "content_hash"):  # as if everything before it were there
                patch.setattr(f"lm_eval_clas.study.stages.{name_of}", lambda path: "hash")
            inputs = [next(s for s in one.all() if s.name == name).inputs() for one in made]
        assert (hash_of(inputs[0]) == hash_of(inputs[1])) == same, name
        assert ("cluster" in json.dumps(inputs[0], default=str)) == (name == "tables")


def test_a_study_begins_anew_with_other_weights_in_the_same_place(checkpoint: Path, tmp_path: Path) -> None:
    local = shutil.copytree(checkpoint, tmp_path / "model")

    def inputs(model: str) -> Any:
        recipe = StudyRecipe.model_validate({**yaml.safe_load(MINIMAL), "model": model})
        return StudyStages(recipe, tmp_path, JobProgress(Console(quiet=True))).all()[0].inputs()

    before = inputs(str(local))
    assert before == inputs(str(local))
    make_model(seed=1).save_pretrained(local)
    assert before != inputs(str(local))
    # A study of any other model is the one that it was before weights were looked at.
    assert [inputs(name)[0] for name in ("user/name", "demo-model")] == [
        [name, "", None, __version__] for name in ("user/name", "demo-model")
    ]


def test_every_metric_of_our_tasks_has_a_table_and_one_against_each_control(tmp_path: Path) -> None:
    """Repetition shows what the share of answers in the asked language hides; other suites have their first one."""
    runs = {"hf": {}, "clas": {"alpha": 1}, "random": {"alpha": 1, "method": "random"}}
    recipe = StudyRecipe.model_validate({**yaml.safe_load(MINIMAL), "evaluate": {"runs": runs}})
    tasks = {f"{family}_{code}": [0.0, 1.0] * 5 for family in ("clas_open_force", "belebele") for code in ("hi", "de")}
    lower = {"higher_is_better": {task: {"in_language": True, "repetition": False} for task in tasks}}
    for label, steering in (("hf", None), ("clas", STEERED), ("random", {**STEERED, "method": "random"})):
        write_run(tmp_path / "results" / label, tasks, steering, metric="in_language", beside={"repetition": tasks}, **lower)
    stages = StudyStages(recipe, tmp_path, JobProgress(Console(quiet=True)))
    found = stages.comparisons()
    assert {name: (one.metric, one.baseline, one.higher_is_better) for name, one in found.items()} == {
        "belebele": ("in_language", "hf", True),
        "belebele-against-random": ("in_language", "random", True),
        "clas_open_force": ("in_language", "hf", True),
        "clas_open_force-against-random": ("in_language", "random", True),
        "clas_open_force-repetition": ("repetition", "hf", False),
        "clas_open_force-repetition-against-random": ("repetition", "random", False),
    }
    commands = stages._tables()
    assert [("--metric repetition" in one) for one in commands] == [False] * 4 + [True] * 2
    assert {path.stem for path in (tmp_path / "tables").glob("*.json")} == set(found)
    text = (tmp_path / "tables" / "clas_open_force-repetition.tex").read_text()
    assert r"\label{tab:clas_open_force-repetition}" in text  # a paper may have all of them


def test_a_stage_is_skipped_until_its_inputs_change(study: Study, tmp_path: Path) -> None:
    log = Log(study)
    assert not log.study.finished(log.stage())
    log.study.run(log.stage())
    assert log.study.finished(log.stage())
    log.value = 2
    assert not log.study.finished(log.stage())
    log.study.run(log.stage())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part-2", "whole"]  # nothing of the old inputs
    record = log.study.record("copy")
    assert record is not None
    assert record.commands == ["cp a b"]


def test_a_killed_stage_is_not_finished_and_keeps_what_it_has(study: Study, tmp_path: Path) -> None:
    log = Log(study)
    log.killed = True
    with pytest.raises(KeyboardInterrupt):
        log.study.run(log.stage())
    assert not log.study.finished(log.stage())
    assert (tmp_path / "out" / "part-1").exists()
    (tmp_path / "out" / "kept").touch()
    log.killed = False
    log.study.run(log.stage())
    assert log.study.finished(log.stage())
    assert (tmp_path / "out" / "kept").exists()


def test_a_stage_without_its_outputs_or_with_a_damaged_record_is_not_finished(study: Study, tmp_path: Path) -> None:
    log = Log(study)
    log.study.run(log.stage())
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert not log.study.finished(log.stage())
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    assert log.study.finished(log.stage())
    (tmp_path / "stages" / "copy.json").write_text("{")
    assert not log.study.finished(log.stage())


@pytest.mark.parametrize("name", ["part-1", "whole"])
def test_a_stage_that_lacks_one_of_its_files_is_not_finished(study: Study, tmp_path: Path, name: str) -> None:
    log = Log(study)
    log.study.run(log.stage())
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "other").touch()
    assert not log.study.finished(log.stage())
    log.study.run(log.stage())
    assert log.study.finished(log.stage())
    assert (tmp_path / "out" / name).is_file()


def test_a_stage_whose_outputs_hold_anothers_file_is_refused_when_its_inputs_change(study: Study, tmp_path: Path) -> None:
    log = Log(study)
    log.study.run(log.stage())
    (tmp_path / "out" / "notes").write_text("mine")
    log.value = 2
    with pytest.raises(ClasError, match=r"notes' is in no record of what this program wrote"):
        log.study.run(log.stage())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["notes", "part-1", "whole"]


def test_the_hash_of_a_folder_is_over_names_and_contents(tmp_path: Path) -> None:
    assert content_hash(tmp_path) is None
    (tmp_path / "a").write_text("1")
    first = content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = content_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, content_hash(tmp_path)}) == 3


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_survive_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = StudyRecipe.load(name)
    assert recipe.name == name
    (tmp_path / "r.yaml").write_text(recipe.dump(), encoding="utf-8")
    assert StudyRecipe.load(tmp_path / "r.yaml") == recipe


def test_the_papers_recipes_have_its_layers_and_factors() -> None:
    llama, qwen = StudyRecipe.load("llama-3.1-8b"), StudyRecipe.load("qwen-2.5-7b")
    assert (llama.masks.bridge, qwen.masks.bridge) == ("24-29", "24-25")
    for recipe in (llama, qwen):
        assert (recipe.masks.beta, recipe.masks.gamma) == (0.4, 0.2)
        assert [part.evaluate for part in recipe.parts.values()] == [["clas_xquad"], ["clas_xnli"]]
        assert {part.limit for part in recipe.parts.values()} == {None}
        # The paper's baseline is at 1; under its plain name, it is tuned as its rivals are.
        assert recipe.evaluate.runs["int-mu-at-1"] == {"alpha": 1, "method": "int-mu"}
        others = [run["alpha"] for label, run in recipe.evaluate.runs.items() if label not in ("hf", "int-mu-at-1")]
        assert set(others) == {"tuned"}


@pytest.mark.parametrize("stage", ["_tune", "_evaluate"])
@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("{alpha: tuned, method: incline, variant: late}", ""),  # it is tuned in layers of its own
        ("{alpha: 0.1, method: incline, layers: 2-4, variant: late}", "needs sentences of layers 2, and"),
        ("{alpha: 0.1, method: incline, variant: late}", ""),
        ("{alpha: tuned, method: diffmean, variant: late}", ""),
        ("{alpha: tuned, method: incline}", ""),
    ],
)
def test_runs_that_their_masks_cannot_do_are_refused_before_anything_is_tuned_or_run(
    stage: str, run: str, said: str, full: MaskSet, profiled: Profile, residual: ResidualProfile, tmp_path: Path
) -> None:
    """A variant of another bridge has sentences of other layers than the part's own masks."""
    late = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="3-4", keep_means=True)
    full.save(tmp_path / "masks" / "p")
    late.with_residual(residual).save(tmp_path / "masks" / "p-late")
    recipe = StudyRecipe.model_validate(
        yaml.safe_load(
            MINIMAL.replace("clas: {alpha: 1}", f"clas: {{alpha: tuned}}, a: {run}").replace("[t]", "[t], tune: [t]")
            + "variants: {late: {bridge: 3-4}}\n"
        )
    )
    stages = StudyStages(recipe, tmp_path, JobProgress(Console(quiet=True)))

    def loads(*_: object) -> None:
        raise LookupError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "tasks", loads)
        with pytest.raises(
            ClasError if said else LookupError, match=f"run 'a' cannot .* in part 'p': .*{said}" if said else None
        ):
            getattr(stages, stage)()


def test_the_papers_grid_is_one_line_and_is_what_clas_tune_tries(masks: MaskSet, tmp_path: Path) -> None:
    line = "tune: {betas: [0.2, 0.4, 0.6], gammas: [0.1, 0.2, 0.4], shared: true}\n"
    (tmp_path / "r.yaml").write_text(MINIMAL + line)
    recipe = StudyRecipe.load(tmp_path / "r.yaml")
    settings = grid(masks, recipe.tune.alphas, recipe.tune.betas, recipe.tune.gammas)
    assert len(settings) == 1 + 8 * 3 * 3 == strengths(recipe, "clas")
    assert strengths(recipe, "diffmean") == 1 + len(METHODS["diffmean"].alphas)  # beta and gamma play no role
    assert {(one.beta, one.gamma) for one in settings[1:]} == {(b, g) for b in (0.2, 0.4, 0.6) for g in (0.1, 0.2, 0.4)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "is wrong .model"),
        (MINIMAL + "speed: 3\n", "is wrong .speed"),
        (MINIMAL.replace("clas: {alpha: 1}", "a/b: {alpha: 1}"), "a/b"),
        (MINIMAL.replace("alpha: 1", "masks: other"), "masks"),
        (MINIMAL.replace("alpha: 1", "alpha: tuned"), "nothing to tune on"),
        (MINIMAL.replace("clas:", "mine:"), "names a run 'clas'"),
        (MINIMAL.replace("[t]}", "[t], runs: {hf: {alpha: 1}}}"), "options for 'hf', which is no run that steers"),
        (MINIMAL.replace("[t]}", "[t], runs: {clas: null}}"), "leaves out the run 'clas', which is the one that is analysed"),
        (MINIMAL.replace("[t]}", "[t], runs: {clsa: {}}}"), "options for 'clsa' .did you mean 'clas'"),
        (MINIMAL.replace("[t]}", "[t], runs: {clas: {variant: v}}}"), "run 'clas' in part '.*' has a variant 'v'"),
        (MINIMAL.replace("[t]}", "[t], limits: {tt: 1}}"), "a limit for 'tt' .did you mean 't'.., which it does not evaluate"),
        (
            MINIMAL.replace("evaluate: {runs", "evaluate: {batch_size: 0, runs"),
            "evaluate.batch_size: it must be a whole .*not '0'",
        ),
        (MINIMAL + "tune: {batch_size: many}", "tune.batch_size: it must be a whole number from 1 on, .* not 'many'"),
        ("[", "as YAML"),
        ("- 1", "is wrong .Input should be a valid dictionary"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ClasError, match=said):
        StudyRecipe.load(tmp_path / "r.yaml")


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(ClasError, match=r"duel-gemma-3-270m, gemma-3-270m, llama-3\.1-8b, llama-3\.1-8b-wide, qwen-2\.5-7b"):
        StudyRecipe.load("nothing")


def test_memory_of_a_shape_is_that_of_weights_and_cache() -> None:
    shape = ModelShape(parameters=8e9, layers=32, hidden_size=4096, neurons=14336, vocabulary=128256, kv_heads=8, head_size=128)
    # Llama 3.1 8B's cache takes 128 KiB a token in 16 bits (2 x 32 x 8 x 128 x 2).
    assert shape.memory(1, 2) - shape.memory(1, 1) == 2**17 + (4 * 4096 + 3 * 14336) * 2
    assert 16e9 < shape.memory(1, 1) < 17e9
    assert shape.in_layers == 8e9 - 2 * 128256 * 4096
    assert shape.model_copy(update={"tied": True}).in_layers == 8e9 - 128256 * 4096
    assert json.loads(shape.model_dump_json())["layers"] == 32


def test_strengths_of_the_analysed_run_may_be_in_a_file(masks: MaskSet, tmp_path: Path) -> None:
    (tmp_path / "alpha.json").write_text('{"Hindi": -2, "default": 1}')
    for alpha, found in (
        (str(tmp_path / "alpha.json"), {"hi": -2, "default": 1}),
        (3, {"default": 3}),
        ("-1.5", {"default": -1.5}),
        ("tuned", {"hi": -3.0, "default": 0.0}),
    ):
        part: dict[str, Any] = {"corpus": "mini", "tune": ["t"], "evaluate": ["t"]}
        recipe = StudyRecipe.model_validate(
            {
                **{"name": "x", "model": "m", "evaluate": {"runs": {"hf": {}, "clas": {"alpha": alpha}}}},
                "parts": {"p": part, "fixed": {**part, "tune": [], "runs": {"clas": {"alpha": 0.5}}}},
            }
        )
        tuned, place = with_strengths(masks, {"clas_mini_nli": {"hi": -3.0}}), SimpleNamespace(recipe=recipe)
        assert alphas_of_run(place, "p", "clas_mini_nli", tuned) == found  # type: ignore[arg-type]
        assert alphas_of_run(place, "fixed", "clas_mini_nli", tuned) == {"default": 0.5}  # type: ignore[arg-type]


def test_geometry_is_steered_in_the_modules_of_the_analysed_run() -> None:
    run = {"alpha": 2, "projection": "*.mlp.down_proj", "method": "uniform", "unseen": "shared"}
    part = {"corpus": "mini", "tune": [], "evaluate": ["t"]}
    recipe = StudyRecipe.model_validate(
        {"name": "x", "model": "m", "parts": {"p": part}, "evaluate": {"runs": {"hf": {}, "clas": run}}}
    )
    found = _steering(SimpleNamespace(recipe=recipe), "p")  # type: ignore[arg-type]
    assert found == {"projection": "*.mlp.down_proj", "method": "uniform"}
