"""Plans: what is counted, how long it takes, what is unknown, and that nothing far or large is touched for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands.application import console
from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.harness.model_loading import load_model
from lm_eval_clas.study.plan import machines
from lm_eval_clas.study.plan.calibration import calibrate, kept_calibration
from lm_eval_clas.study.plan.known_sizes import known_sizes
from lm_eval_clas.study.plan.machines import GPUS, Machine, Span, Workload, gpu_machine
from lm_eval_clas.study.plan.making import plan_study
from lm_eval_clas.study.plan.model_shapes import planned_model
from lm_eval_clas.study.plan.stage_work import StageWork, stage_works
from lm_eval_clas.study.plan.told_plan import duration_between, gpu_rows, stage_cells, total_sentence
from lm_eval_clas.study.recipe import StudyRecipe, shipped_recipes

SHAPE = {"parameters": 1e9, "layers": 6, "hidden_size": 8, "neurons": 8, "vocabulary": 9, "kv_heads": 1, "head_size": 8}

# Nothing connects, nothing is looked up, and the libraries that load models and data sets are not even imported.
PLANNING = """
import json, socket, sys
def refuse(*_, **__):
    raise AssertionError("a plan opened a connection")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from lm_eval_clas.commands.cli import main
for recipe in json.loads(sys.argv[1]):
    sys.argv = ["clas", "paper", recipe, "--plan"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
loaded = {"torch", "transformers", "datasets", "lm_eval", "matplotlib", "scipy.stats"} & set(sys.modules)
assert not loaded, loaded
"""


def recipe(**changes: Any) -> StudyRecipe:
    made = {
        "name": "small",
        "model": "nobody/knows",
        "device": "cpu",
        "shape": SHAPE,
        "profile": {"samples": 3, "languages": ["en", "hi"], "max_tokens": 50},
        "masks": {"bridge": "3-4"},
        "tune": {"alphas": [-1, 1], "objective": "loglikelihood", "limit": 4},
        "evaluate": {"batch_size": 4, "runs": {"hf": {}, "clas": {"alpha": 1}}},
        "analyse": {"geometry_samples": 2},
        "parts": {
            "nli": {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi"], "limit": 5},
            "qa": {"corpus": "mini", "evaluate": ["clas_mini_qa_hi", "clas_mini_qa_en"], "limit": 6},
        },
        **changes,
    }
    return StudyRecipe.model_validate(made)


def works(one: StudyRecipe) -> dict[str, StageWork]:
    return {work.stage: work for work in stage_works(one, "gemma-3", 6)}


@pytest.mark.parametrize("offline", [None, "1"])
def test_shipped_recipes_are_planned_without_network_model_or_data(offline: str | None, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"LM_EVAL_CLAS_CACHE": str(tmp_path / "c"), "HF_HOME": str(tmp_path / "h"), "COLUMNS": "120"}
    environment |= {"HF_HUB_OFFLINE": offline} if offline else {}
    command = [sys.executable, "-c", PLANNING, json.dumps(shipped_recipes())]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("In all ") == len(shipped_recipes())
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("Can show: ")]
    assert not [line for line in lines if "unknown" in line]
    assert "0 s" not in ended.stdout.split()
    assert list(tmp_path.iterdir()) == []


def test_prompts_tokens_and_positions_are_those_of_a_loop() -> None:
    found, sizes = works(recipe()), known_sizes()
    # Two corpora of 3 items in 2 languages, and the first one again in two halves.
    assert found["profile"].items == 3 * 3 * 2
    assert found["tune"].items == 3 * 4
    assert found["evaluate"].items == 2 * (5 + 6) + 6  # the anchor's once for both runs
    assert found["analyse"].items == 2 * 2 * (2 * 2)

    texts = {one: sizes.corpora["mini"].characters[one] / sizes.tokenizers["gemma-3"][one] for one in ("en", "hi")}
    assert found["profile"].plain.tokens.low == pytest.approx(9 * sum(min(one, 50) for one in texts.values()))
    assert found["analyse"].plain.tokens.high == pytest.approx(8 * sum(min(one, 50) for one in texts.values()))

    nli = sizes.families["clas_mini_nli"].tasks["clas_mini_nli_hi"]
    prompt = nli.prompt / sizes.tokenizers["gemma-3"]["hi"] * nli.run
    more = nli.choices * (nli.answer_tokens - 1)
    qa = sizes.families["clas_mini_qa"]
    asked = [6 * one.prompt * one.run / sizes.tokenizers["gemma-3"][one.language] * (1 if one.language == "en" else 2)
             for one in qa.tasks.values() if one.language in ("hi", "en")]  # fmt: skip
    assert found["evaluate"].plain.tokens.low == pytest.approx(2 * 5 * (prompt + more) + sum(asked))
    assert found["evaluate"].plain.read.low == pytest.approx(2 * 5 * (1 + more) + 3 * 6)
    low, high = qa.written or (0, 0)
    assert found["evaluate"].plain.written == Span(3 * 6 * low, 3 * 6 * high)
    assert found["evaluate"].plain.loads == 2 * 2
    # Layers 0 to 2 of 6 run once for the three strengths, the others for each.
    assert found["tune"].plain.tokens.low == pytest.approx(4 * (prompt + more) * (0.5 + 0.5 * 3))
    assert found["tune"].plain.read.low == pytest.approx(3 * 4 * (1 + more))


def test_a_corpus_of_the_user_is_counted_in_its_files(tmp_path: Path) -> None:
    for language, text in (("en", "Tea grows.\n" * 4), ("hi", "चाय उगती है।\n" * 4)):
        (tmp_path / f"{language}.txt").write_text(text, encoding="utf-8")
    parts = {"own": {"corpus": str(tmp_path), "evaluate": ["clas_mini_nli_hi"]}}
    work = works(recipe(parts=parts, profile={"samples": 3, "halves": False}))["profile"]
    assert (work.items, work.unknown) == (2 * 3, [])
    rates = known_sizes().tokenizers["gemma-3"]
    assert work.plain.tokens.low == pytest.approx(3 * (10 / rates["en"] + 12 / rates["hi"]))


def test_a_grid_of_beta_and_gamma_is_counted() -> None:
    one = recipe(tune={"alphas": [-1, 0, 1], "betas": [0.2, 0.4, 0.6], "gammas": [0.1, 0.2, 0.4], "limit": 4})
    assert works(one)["tune"].what == "19 strengths"
    assert works(one)["tune"].items == 19 * 4


def test_what_the_guard_may_keep_at_0_may_be_answered_once() -> None:
    runs = {"hf": {}, "clas": {"alpha": "tuned"}, "uniform": {"alpha": "tuned", "method": "uniform"}, "fixed": {"alpha": 1}}
    parts = {"p": {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi"], "limit": 5}}
    spans = {}
    for guard in (True, False):
        work = works(recipe(parts=parts, evaluate={"runs": runs}, tune={"alphas": [1], "guard": guard}))["evaluate"]
        spans[guard] = work.plain.tokens
        assert work.items == 4 * 5
    assert spans[True].high == pytest.approx(spans[False].high)
    assert spans[True].low == pytest.approx(spans[False].low / 2)  # the unsteered and the fixed run


def test_a_task_with_a_limit_of_its_own_is_counted_with_it() -> None:
    parts = {
        "all": {"corpus": "mini", "evaluate": ["clas_mini_nli", "clas_mini_qa"], "limit": 24, "limits": {"clas_mini_qa": 12}}
    }
    languages = {name: len(known_sizes().find([name])[0]) for name in ("clas_mini_nli", "clas_mini_qa")}
    one = recipe(parts=parts)
    # Both runs answer in Hindi; in all other languages, which the masks do not have, nothing is steered.
    assert works(one)["evaluate"].items == 24 * (languages["clas_mini_nli"] + 1) + 12 * (languages["clas_mini_qa"] + 1)
    assert [sentence.split(" items")[0] for sentence in plan_study(one, {}).can_show] == [
        "clas_mini_nli: 24",
        "clas_mini_qa: 12",
    ]


def test_only_parts_that_generate_altogether_run_inside_vllm() -> None:
    found = works(recipe(engine="vllm"))["evaluate"]
    assert found.inside.written.low == found.plain.written.low > 0
    assert found.beside.written == Span(0, 0)
    assert found.inside.loads == found.beside.loads == 2


def test_time_is_that_of_operations_or_of_reading_weights() -> None:
    shape = ModelShape(**{**SHAPE, "parameters": 1000 + 2 * 72})
    machine = Machine("m", Span(10, 20), Span(100, 400), Span(0.5, 1), Span(1, 2), Span(8, 16), "")
    work = Workload(count=Span(3, 3), tokens=Span(10, 10), read=Span(5, 5))
    # 2 operations for each parameter of the layers and token, and of the output layer (9 x 8) and position.
    assert machine.seconds(work, shape).low == pytest.approx((2 * 1000 * 10 + 2 * 72 * 5) / 20 + 6 * 3 * 0.5)
    assert machine.seconds(work, shape).high == pytest.approx((2 * 1000 * 10 + 2 * 72 * 5) / 10 + 6 * 3 * 1)
    few = Workload(steps=Span(100, 100), written=Span(1, 1))
    assert machine.seconds(few, shape).low == pytest.approx(100 * 1072 * 2 / 400 + 6 * 100 * 0.5)
    assert machine.seconds(Workload(loads=2), shape).high == pytest.approx(2 * (2 + 1144 * 2 / 8))


def test_vllm_is_planned_faster_and_every_gpu_is_said_to_be_estimated() -> None:
    plan = plan_study(StudyRecipe.load("llama-3.1-8b"), {})
    for gpu in GPUS:
        plain, vllm = (one.seconds for one in plan.gpus if one.gpu == gpu.name)
        assert plain is not None
        assert vllm is not None
        assert vllm[1] < plain[1]
    assert {(one.gpu, one.asked, one.batch) for one in plan.gpus} == {
        ("A100 80GB", 16, 16), ("H100", 16, 16), ("L4", 16, 8), ("RTX 4090", 16, 8),
    }  # fmt: skip
    assert ("L4", "23 GiB, more than it has; batch 8 fits") in {(row[0], row[3]) for row in gpu_rows(plan.gpus)}
    assert any("peak operations" in line for line in plan.assumes)
    assert gpu_machine(GPUS[1], "hf").operations.low > gpu_machine(GPUS[0], "hf").operations.low


def test_what_is_unknown_is_called_so_in_its_cell_and_in_the_total() -> None:
    parts = {
        "nli": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi", "no_such_task"], "limit": 2},
        "lost": {"corpus": "nowhere", "tune": ["nothing"], "evaluate": ["clas_mini_nli_hi"], "limit": 2},
    }
    plan = plan_study(recipe(parts=parts), {})
    stages = {one.stage: one for one in plan.stages}
    assert stages["tune"].seconds is None
    assert stage_cells(stages["tune"]) == ("unknown", "unknown", "unknown")
    assert all(cell.startswith("at least ") for cell in stage_cells(stages["evaluate"]))
    said = total_sentence(plan)
    assert said.startswith("In all ")
    for left_out in ("tune, whose time is unknown", "no_such_task: its items are not on file (evaluate)", "'nowhere'", "masks"):
        assert left_out in said
    nothing = plan_study(recipe(shape=None, parts=parts), {})
    assert nothing.total is None
    assert {one.seconds for one in nothing.stages} == {None}
    assert {one.seconds for one in nothing.gpus} == {None}
    assert total_sentence(nothing).startswith(
        "How long it takes here is unknown; not counted are profile, tune, evaluate and analyse, whose time is unknown"
    )
    assert "The shape of 'nobody/knows' is unknown" in " ".join(nothing.assumes)


def test_stages_that_are_done_are_not_in_the_total() -> None:
    before = plan_study(recipe(), {})
    after = plan_study(recipe(), {"profile": True, "masks": True})
    assert before.total is not None
    assert after.total is not None
    assert after.total[1] < before.total[1]
    assert stage_cells(after.stages[0])[2] == "done"
    every = dict.fromkeys(("profile", "masks", "tune", "evaluate", "analyse", "tables", "report"), True)
    assert total_sentence(plan_study(recipe(), every)) == "Every stage is done."


def test_the_shape_of_an_own_model_is_read_from_its_folder(checkpoint: Path, tmp_path: Path) -> None:
    model = planned_model(recipe(model=str(checkpoint), shape=None))
    assert model.shape is not None
    assert (model.shape.layers, model.shape.bytes_per_weight) == (6, 4)
    assert model.shape.parameters == pytest.approx(
        sum(p.numel() for p in load_model(str(checkpoint), "", "cpu").model.parameters()), rel=0.1
    )
    halved = planned_model(recipe(model=str(checkpoint), shape=None, model_args="dtype=bfloat16")).shape
    assert halved is not None
    assert halved.bytes_per_weight == 2
    for content, why in (
        ('{"num_local_experts": 8}', "mixture of experts"),
        ("{}", "its weights are not"),
        ("[", "its configuration does not say it"),
    ):
        (tmp_path / "config.json").write_text(content)
        found = planned_model(recipe(model=str(tmp_path), shape=None))
        assert found.shape is None
        assert why in found.about


def test_a_calibration_is_kept_and_made_again_if_it_is_damaged(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_EVAL_CLAS_CACHE", str(tmp_path / "cache"))
    one = recipe(model=str(checkpoint), shape=None)
    shape = planned_model(one).shape
    assert shape is not None
    assert kept_calibration(one) is None
    measured = calibrate(one, shape, lambda: load_model(str(checkpoint), "", "cpu"))
    assert measured.operations.low > 0
    assert measured.bytes.low > 0
    assert kept_calibration(one) == measured
    assert kept_calibration(recipe(model="other")) is None
    assert plan_study(one, {}, measured).machine == "this machine, as calibrated"
    (kept,) = (tmp_path / "cache" / "calibration").iterdir()
    kept.write_text("{")
    assert kept_calibration(one) is None


def test_the_smallest_gain_is_told_with_what_is_assumed() -> None:
    parts: dict[str, dict[str, Any]] = {
        "nli": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi", "clas_mini_nli_de"]},
        "qa": {"corpus": "mini", "evaluate": ["clas_mini_qa_hi"], "limit": 12},
        "few": {"corpus": "mini", "evaluate": ["clas_mini_nli_sw"], "limit": 9},
    }
    told = plan_study(recipe(parts=parts), {}).can_show
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
    assert plan_study(recipe(parts=parts), {}).can_show == [
        f"clas_mini_nli: 48 items a language in 16 clusters (by 'cluster') show a gain of {gain:.1f} points in a language in "
        f"80 % of cases (p < 0.05, before Holm), and one of the average of 3 languages, the anchor among them, of "
        f"{2**0.5 * gain / 3:.1f} (if languages gain independently) to {2 * gain / 3:.1f}, assuming that 10 % of answers "
        "change, and gains correlate by 0.2 within clusters.",
        told[1],
    ]
    apart = plan_study(recipe(parts=parts, cluster="none"), {}).can_show
    assert apart[0].startswith("clas_mini_nli: 48 items a language show a gain of ")
    with pytest.raises(ClasError, match="48 of 48 documents of clas_mini_nli_en have no field 'passage'"):
        plan_study(recipe(parts=parts, cluster="passage"), {})


@pytest.mark.parametrize(
    ("driver", "device", "machine"),
    [
        ("NVIDIA A100-SXM4-80GB", None, "A100 80GB"),
        ("NVIDIA GeForce RTX 4090", "cuda:1", "RTX 4090"),
        ("NVIDIA L40S", None, None),
        ("NVIDIA H100 80GB HBM3", "cpu", "this machine's CPU (3 cores)"),
        (None, None, "this machine's CPU (3 cores)"),
        (None, "mps", None),
    ],
)
def test_this_machine_is_its_gpu_or_its_cpu(
    driver: str | None, device: str | None, machine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_own_gpu", lambda: driver)
    monkeypatch.setattr(machines, "cores", lambda: 3)
    found = machines.this_machine(device)
    assert (found and found.name) == machine
    if found is None:
        monkeypatch.setattr("lm_eval_clas.study.plan.making.this_machine", lambda _: None)
        plan = plan_study(recipe(), {})
        assert plan.total is None
        assert "--calibrate measures it" in " ".join(plan.assumes)


def test_durations_have_one_unit() -> None:
    assert duration_between((30, 60)) == "30 to 60 s"
    assert duration_between((100, 700)) == "1.7 to 12 min"
    assert duration_between((1800, 7200)) == "0.5 to 2.0 h"
    assert duration_between(None) == "unknown"


def test_the_plan_is_printed_as_data(clas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, error = clas("paper", "llama-3.1-8b", "--plan", "--json")
    assert code == 0, error
    told, made = json.loads(text), plan_study(StudyRecipe.load("llama-3.1-8b"), {})
    assert [one["stage"] for one in told["stages"]] == ["profile", "tune", "evaluate", "analyse"]
    assert told["gpus"] == json.loads(made.model_dump_json())["gpus"]
    code, _, error = clas("paper", "llama-3.1-8b", "--json")
    assert code == 2
    assert "together with --plan" in error


@pytest.mark.parametrize("width", [60, 80])
def test_the_plan_folds_on_a_narrow_screen(clas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", width)
    code, text, error = clas("paper", "llama-3.1-8b-wide", "--plan")
    assert code == 0, error
    tables = [line for line in text.splitlines() if not line.startswith(("In all", "Assumed:", "Not counted:", "Can show:"))]
    assert max(map(len, tables)) <= width
    made = plan_study(StudyRecipe.load("llama-3.1-8b-wide"), {})
    shown = [re.sub(r"\s+", " ", line) for line in tables]
    for cells in [*map(stage_cells, made.stages), *(row[1:3] for row in gpu_rows(made.gpus))]:
        for cell in cells:
            assert any(cell in line for line in shown), cell  # in one piece
