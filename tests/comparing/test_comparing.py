"""Reading runs and comparing them: runs written by the harness itself on a small model, and made ones where numbers matter."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from made_runs import STEERED, compare_made, draw, write_run
from scipy.stats import binomtest
from small_models import make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.comparing import results_files
from lm_eval_clas.comparing.cited import cited_rows
from lm_eval_clas.comparing.compare_runs import compare, further_metrics
from lm_eval_clas.comparing.layouts import caption, legend
from lm_eval_clas.comparing.printed.written_names import written_metric
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.comparing.tables import latex, markdown_table
from lm_eval_clas.comparing.task_families import families
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.evidence.paired_tests import holm, sign_flips
from lm_eval_clas.study.report.first_screen import task_sentence
from lm_eval_clas.study.report.verdicts import answers_changed

LANGUAGES = ("en", "de", "hi", "zh")
SETTINGS: dict[str, dict[str, Any]] = {
    "hf": {},
    "clas": {"alpha": 2.0},
    "uniform": {"alpha": 2.0, "method": "uniform"},
    **{f"random-{seed}": {"alpha": 2.0, "method": "random", "seed": seed} for seed in range(2)},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> Path:
    """Output folders of the harness: NLI by baseline, method and controls; questions by the first two."""
    root = tmp_path_factory.mktemp("study")
    manager = TaskManager(include_path=str(shipped("tasks")), include_defaults=False)
    for label, options in SETTINGS.items():
        tasks = [f"clas_mini_nli_{language}" for language in LANGUAGES]
        tasks += ["clas_mini_qa_hi"] if label in ("hf", "clas") else []
        arguments = {"pretrained": make_model(), "tokenizer": tokenizer, "batch_size": 8, "max_length": 512}
        lm = CLASLM(masks=masks, **options, **arguments) if options else HFLM(**arguments)
        tracker = EvaluationTracker(output_path=str(root / label))
        found = simple_evaluate(
            lm, tasks=tasks, task_manager=manager, limit=6, log_samples=True, evaluation_tracker=tracker, bootstrap_iters=0
        )
        # What the harness's own command does; of a model that is no name, it would keep no name.
        tracker.general_config_tracker.model_source = "hf-clas" if options else "hf"
        tracker.general_config_tracker.model_name = "small-llama"
        tracker.general_config_tracker.model_name_sanitized = "small-llama"
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for task in tasks:
            tracker.save_results_samples(task_name=task, samples=samples[task])
    return root


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Comparison]:
    """`compare_made` in a folder of its own."""
    return lambda *values, **options: compare_made(tmp_path, *values, **options)


def test_runs_of_the_harness(study: Path) -> None:
    runs = read_runs([study])
    assert sorted(run.label for run in runs) == [
        "clas alpha 2", "hf", "random alpha 2, seed 0", "random alpha 2, seed 1", "uniform alpha 2",
    ]  # fmt: skip
    assert families(runs) == {
        "clas_mini_nli": {language: f"clas_mini_nli_{language}" for language in sorted(LANGUAGES)},
        "clas_mini_qa": {"hi": "clas_mini_qa_hi"},
    }
    found = compare(runs, "clas_mini_nli")
    told = (found.baseline, found.metric, found.unit, found.test, found.anchor)
    assert told == ("hf", "acc", "points", "cluster permutation", "en")
    assert found.cluster_fields == dict.fromkeys(LANGUAGES, "cluster")  # three hypotheses of one premise
    assert {cell.clusters for row in found.rows[1:] for cell in row.cells.values()} == {2}
    assert compare(runs, "clas_mini_nli", cluster="none").test == "exact McNemar"
    assert found.languages == ["en", "de", "hi", "zh"] == found.average_languages
    assert [(row.label, row.kind) for row in found.rows] == [
        ("hf", "baseline"), ("random alpha 2, 2 seeds", "control"), ("uniform alpha 2", "control"), ("clas alpha 2", "method"),
    ]  # fmt: skip
    for row in found.rows[1:]:
        assert (row.cells["en"].gain, row.cells["en"].p_value) == (0, 1)  # the anchor is never steered
    assert any(cell.gain for row in found.rows for cell in row.cells.values())
    assert compare(runs, "clas_mini_qa").metric == "f1_lang"
    assert compare(runs, "clas_mini_qa", "exact_match").metric == "exact_match"


def test_scores_and_gains_are_those_of_the_files(study: Path) -> None:
    found = compare(read_runs([f"{label}={study / label}" for label in SETTINGS]), "clas_mini_nli")
    assert [row.label for row in found.rows] == ["hf", "uniform", "random, 2 seeds", "clas"]
    files = {label: json.loads(next((study / label).rglob("results_*.json")).read_text())["results"] for label in SETTINGS}
    for language in LANGUAGES:
        acc = {label: 100 * results[f"clas_mini_nli_{language}"]["acc,none"] for label, results in files.items()}
        acc["random, 2 seeds"] = np.mean([acc[f"random-{seed}"] for seed in range(2)])
        for row in found.rows:
            assert row.cells[language].score == pytest.approx(acc[row.label])
            assert row.cells[language].items == 6
            if row.kind != "baseline":
                assert row.cells[language].gain == pytest.approx(acc[row.label] - acc["hf"])


@pytest.mark.parametrize("graded", [False, True])
def test_tests_by_language_are_the_textbooks(made: Callable[..., Comparison], graded: bool) -> None:
    theirs, ours = draw(1, graded=graded), draw(2, graded=graded)
    ours[next(iter(ours))] = theirs[next(iter(ours))]  # the anchor
    found = made(theirs, ours)
    row = found.rows[1]
    p = {}
    for task, language in ((task, task[-2:]) for task in theirs):
        a, b = np.array(ours[task]), np.array(theirs[task])
        assert row.cells[language].gain == pytest.approx(100 * (a.mean() - b.mean()))
        won, lost = int((a > b).sum()), int((a < b).sum())
        exact = binomtest(won, won + lost).pvalue if won + lost else 1.0
        p[language] = sign_flips(a, b) if graded else exact
        assert row.cells[language].p_value == pytest.approx(p[language], abs=0.02 if graded else 1e-12)
    steered = [one for one in found.languages if one != "en"]
    assert [row.cells[one].p_holm for one in steered] == holm([row.cells[one].p_value or 0 for one in steered])
    assert (row.cells["en"].p_value, row.cells["en"].p_holm) == (1, None)
    assert found.test == ("permutation" if graded else "exact McNemar")
    gains = [cell.gain or 0 for cell in row.cells.values()]
    assert row.gain == pytest.approx(np.mean(gains))
    assert row.percent == pytest.approx(100 * np.mean(gains) / (found.rows[0].average or 0))
    assert row.losses == sum(gain < 0 for gain in gains)
    assert (row.low or 0) < (row.gain or 0) < (row.high or 0)


CODES = ("en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "vi")
RISE = {task: [0.0] * 40 for task in (f"xnli_{code}" for code in CODES)}


def steered(*codes: str, **more: Any) -> dict[str, Any]:
    """What a run with tuned strengths tells that steered these languages alone."""
    strengths = {code: {"alpha": float(code in codes)} for code in CODES if code != "en"}
    return {**STEERED, "alpha": "tuned", "tuned": {"xnli": strengths}, "left_alone": {"en": "anchor"}, **more}


def risen(*codes: str, items: int = 8) -> dict[str, list[float]]:
    """Some items more are right in these languages."""
    return RISE | {f"xnli_{code}": [1.0] * items + [0.0] * (40 - items) for code in codes}


def test_holm_is_over_the_languages_that_were_steered(tmp_path: Path) -> None:
    """Tuning fixed them beforehand; eleven that cannot differ must not hide the one that does."""
    write_run(tmp_path / "hf", RISE)
    write_run(tmp_path / "one", risen("el"), steered("el"))
    write_run(tmp_path / "three", risen("el", "hi"), steered("el", "hi", "th", method="uniform", masks_hash="other"))
    found = compare(read_runs([f"{name}={tmp_path / name}" for name in ("hf", "one", "three")]), "xnli")
    rows = {row.label: row for row in found.rows}
    p = 2 / 2**8
    assert {code for code, cell in rows["one"].cells.items() if cell.p_holm is not None} == {"el"}
    assert (rows["one"].cells["el"].p_value, rows["one"].cells["el"].p_holm) == (p, p)
    assert (rows["one"].significant_gains, rows["one"].significant_losses) == (1, 0)
    assert {code: cell.p_holm for code, cell in rows["three"].cells.items() if cell.p_holm is not None} == {
        "el": pytest.approx(3 * p), "hi": pytest.approx(3 * p), "th": 1,
    }  # fmt: skip
    assert all(cell.p_value == 1 for code, cell in rows["one"].cells.items() if code != "el")
    assert "Holm-adjusted over the languages that the row steered (1 to 3)" in legend(found)
    against = compare(read_runs([f"{name}={tmp_path / name}" for name in ("hf", "one", "three")]), "xnli", baseline="three")
    rows = {row.label: row for row in against.rows}
    for label in ("hf", "one"):  # whatever either of two runs steered may differ
        assert {code for code, cell in rows[label].cells.items() if cell.p_holm is not None} == {"el", "hi", "th"}
    assert "Holm-adjusted over the languages that the row or three steered (3)" in legend(against)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((None, {"model_name": "other"}), (None, {})),  # another model: nothing says where it differs
        ((None, {}), (steered("el"), {"model_name": "other"})),
        (
            (None, {"config": {"model": "hf", "model_args": {"pretrained": "some/model", "peft": "a"}}}),
            (None, {}),
        ),  # an adapter
        (({"method": "off"}, {}), (None, {})),  # both as the model is, in another dtype for example
        ((steered(forced_language="el"), {}), (None, {})),  # every request as Greek, the anchor's, too
    ],
)
def test_holm_is_over_all_languages_where_nothing_tells_which_were_steered(
    tmp_path: Path, ours: tuple[Any, dict[str, Any]], theirs: tuple[Any, dict[str, Any]]
) -> None:
    if ours[0] and ours[0].get("forced_language"):
        ours[0]["tuned"]["xnli"]["el"]["alpha"] = 1.0
    write_run(tmp_path / "theirs", RISE, theirs[0], **theirs[1])
    write_run(tmp_path / "ours", risen("el"), ours[0], **ours[1])
    found = compare(read_runs([f"{name}={tmp_path / name}" for name in ("theirs", "ours")]), "xnli", baseline="theirs")
    cells = found.rows[1].cells
    assert cells["el"].p_holm == pytest.approx(12 * 2 / 2**8)
    assert all(cell.p_holm is not None for cell in cells.values())
    assert "Holm-adjusted over 12 languages" in legend(found)


def test_what_stands_beside_a_control_is_called_what_it_is(tmp_path: Path) -> None:
    """The model as it is was a control where a control was the baseline."""
    off = {"method": "off", "why": "no masks were given"}
    for entry in (off, None):  # as `hf-clas` tells it, and as `hf` does
        write_run(tmp_path / "hf", RISE, entry)
        write_run(tmp_path / "clas", risen("el"), steered("el"))
        write_run(tmp_path / "uniform", risen("hi"), steered("el", method="uniform"))
        runs = read_runs([f"{name}={tmp_path / name}" for name in ("hf", "clas", "uniform")])
        found = compare(runs, "xnli", baseline="uniform")
        assert [(row.label, row.kind) for row in found.rows] == [
            ("uniform", "baseline"), ("hf", "unsteered"), ("clas", "method"),
        ]  # fmt: skip
        assert "hf (unsteered)" in markdown_table(found)
        assert "unsteered" in latex(found)
        assert "(unsteered)" not in latex(found)
        assert "control" not in markdown_table(found)
        shutil.rmtree(tmp_path / "hf")
    for name in ("one", "two"):  # two models that nothing steers are both in question
        write_run(tmp_path / name, RISE, model_name=name)
    found = compare(read_runs([f"{name}={tmp_path / name}" for name in ("one", "two")]), "xnli", baseline="one")
    assert [row.kind for row in found.rows] == ["baseline", "method"]


def test_one_draw_and_fixed_strengths_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "hf", RISE)
    for label, entry in (
        ("clas", steered("el")), ("random", steered("el", method="random", seed=3)),
        ("int-mu", {**STEERED, "method": "int-mu", "alpha": 1.0}), ("lape", {**STEERED, "alpha": -2.0, "masks_hash": "b"}),
        ("alpha 1 of mine", STEERED),
    ):  # fmt: skip
        write_run(tmp_path / label, RISE, entry)
    notes = compare(read_runs([f"{path.name}={path}" for path in sorted(tmp_path.iterdir())]), "xnli").notes
    assert "random: one draw, seed 3; intervals and tests are over items, not over draws." in notes
    assert "Strengths that were fixed and not tuned: alpha 1 in 'int-mu'; alpha -2 in 'lape'." in notes
    assert sum("draw" in note for note in notes) == sum("fixed" in note for note in notes) == 1


def test_what_else_tasks_of_ours_score_can_be_compared(tmp_path: Path) -> None:
    tasks = {f"{family}_{code}": [0.0] * 8 for family in ("clas_open_force", "belebele") for code in ("hi", "de")}
    write_run(tmp_path / "hf", tasks, metric="in_language", beside={"repetition": tasks, "only_here": tasks})
    write_run(tmp_path / "clas", tasks, STEERED, metric="in_language", beside={"repetition": tasks})
    runs = read_runs([tmp_path])
    assert further_metrics(runs, "clas_open_force") == ["repetition"]
    assert further_metrics(runs, "belebele") == []
    assert compare(runs, "clas_open_force", "repetition").metric == "repetition"
    names = {written_metric(one, "clas_xquad") for one in ("f1_lang", "f1", "exact_match")}
    assert names == {"F1", "SQuAD F1", "exact match"}
    assert written_metric("f1", "mlqa") == "F1"


def test_a_loss_that_is_no_accident_is_counted(made: Callable[..., Comparison]) -> None:
    right, wrong = [1.0] * 40, [0.0] * 40
    mixed = [0.0, 1.0] * 20
    row = made(
        {"xnli_hi": right, "xnli_sw": wrong, "xnli_th": mixed, "xnli_en": mixed},
        {"xnli_hi": wrong, "xnli_sw": right, "xnli_th": [0.0, *mixed[2:], 0.0], "xnli_en": mixed},
    ).rows[1]
    assert (row.losses, row.significant_losses, row.significant_gains) == (2, 1, 1)


def test_the_anchor_is_in_the_average_unless_asked(made: Callable[..., Comparison], tmp_path: Path) -> None:
    theirs, ours = draw(3), draw(4)
    with_anchor = made(theirs, ours)
    assert any("the anchor en" in note and "among them" in note for note in with_anchor.notes)
    without = made(theirs, ours, without_anchor=True)
    assert without.languages[0] == "en"
    assert without.average_languages == ["hi", "sw"]
    assert without.rows[1].gain == pytest.approx(np.mean([without.rows[1].cells[one].gain for one in ("hi", "sw")]))
    assert any("without the anchor" in note for note in without.notes)


def test_seeds_of_one_control_are_one_row(tmp_path: Path) -> None:
    theirs = draw(5)
    seeds = [draw(10 + seed) for seed in range(4)]
    write_run(tmp_path / "hf", theirs)
    for seed, values in enumerate(seeds):
        arguments = {"model": "hf-clas", "model_args": f"pretrained=some/model,method=random,seed={seed}"}
        config = {**arguments, "clas": {**STEERED, "method": "random", "seed": seed}}
        write_run(tmp_path / str(seed), values, config=config)
    found = compare(read_runs([tmp_path]), "xnli")
    assert [row.label for row in found.rows] == ["hf", "random alpha 1, 4 seeds"]
    for task in theirs:
        means = np.mean([values[task] for values in seeds], axis=0)
        cell = found.rows[1].cells[task[-2:]]
        assert cell.score == pytest.approx(100 * means.mean())
        assert cell.p_value == pytest.approx(sign_flips(means, theirs[task]), abs=0.02)
    assert any("mean over seeds 0, 1, 2, 3" in note for note in found.notes)
    shutil.copytree(tmp_path / "0", tmp_path / "again")
    with pytest.raises(ClasError, match="one seed"):
        compare(read_runs([tmp_path]), "xnli")


def test_runs_of_different_items_are_refused(tmp_path: Path) -> None:
    values = draw(6)
    write_run(tmp_path / "hf", values)
    for label, change in {
        "fewer": lambda: write_run(tmp_path / "clas", {task: one[:50] for task, one in values.items()}, STEERED),
        "others": lambda: write_run(tmp_path / "clas", values, STEERED, offset=1),
        "no samples": lambda: write_run(
            tmp_path / "clas", {task: one[:50] for task, one in values.items()}, STEERED, samples=False
        ),
    }.items():
        change()
        with pytest.raises(ClasError, match=r"did not answer the same items of xnli_(en|hi|sw) \(60 and|\(50 and 60"):
            compare(read_runs([tmp_path]), "xnli")
        shutil.rmtree(tmp_path / "clas")
        assert label
    for told, message in [
        ({"versions": dict.fromkeys(values, 2.0)}, "versions 2.0 and 1.0"),
        ({"task_hashes": {"xnli_en": "x"}}, ""),
    ]:
        write_run(tmp_path / "clas", values, STEERED, samples=False, **told)
        if message:
            with pytest.raises(ClasError, match=message):
                compare(read_runs([tmp_path]), "xnli")
        else:
            compare(read_runs([tmp_path]), "xnli")
    write_run(tmp_path / "hf", values, task_hashes={"xnli_en": "y"})
    with pytest.raises(ClasError, match="other items or prompts in xnli_en"):
        compare(read_runs([tmp_path]), "xnli")


def test_one_changed_document_is_noticed(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "hf", tmp_path / "hf")
    shutil.copytree(study / "clas", tmp_path / "clas")
    path = next((tmp_path / "clas").rglob("samples_clas_mini_nli_hi_*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["doc_hash"] = "0" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ClasError, match="same items of clas_mini_nli_hi \\(6 and 6, of which 5 are the same\\)"):
        compare(read_runs([tmp_path]), "clas_mini_nli")
    compare(read_runs([tmp_path]), "clas_mini_qa")  # the other tasks are as they were


def test_other_prompts_are_noted(tmp_path: Path, study: Path) -> None:
    shutil.copytree(study / "hf", tmp_path / "hf")
    shutil.copytree(study / "clas", tmp_path / "clas")
    path = next((tmp_path / "clas").rglob("samples_clas_mini_nli_hi_*.jsonl"))
    path.write_text(re.sub(r'"prompt_hash": "\w', '"prompt_hash": "-', path.read_text()))
    assert any("other prompts" in note for note in compare(read_runs([tmp_path]), "clas_mini_nli").notes)


def test_without_samples_there_are_scores_and_no_tests(made: Callable[..., Comparison]) -> None:
    found = made(draw(1), draw(2), samples=False)
    row = found.rows[1]
    assert (found.test, row.low, row.significant_losses) == ("none", None, None)
    assert row.gain is not None
    assert all(cell.gain is not None and cell.p_value is None for cell in row.cells.values())
    assert any("--log_samples" in note for note in found.notes)
    for draw_it in (markdown_table, latex):
        assert "p <" not in draw_it(found)


def test_a_metric_that_is_no_mean_is_taken_as_reported(made: Callable[..., Comparison]) -> None:
    found = made(draw(1), draw(2), measured="mcc", reported=0.25)
    assert found.rows[1].cells["hi"].score == 25
    assert (found.test, found.rows[1].low) == ("none", None)
    assert any("mcc is not the mean" in note for note in found.notes)


def test_lower_is_better_turns_losses_round(made: Callable[..., Comparison]) -> None:
    better = {"word_perplexity": False}
    told = {"xnli_hi": better, "xnli_en": better}
    found = made({"xnli_en": [9.0] * 9, "xnli_hi": [7.0] * 9}, {"xnli_en": [9.0] * 9, "xnli_hi": [9.0] * 9},
                 measured="word_perplexity", higher_is_better=told)  # fmt: skip
    assert (found.unit, found.higher_is_better, found.rows[1].losses) == ("word_perplexity", False, 1)
    assert (found.rows[1].significant_losses, found.rows[1].cells["hi"].gain) == (1, 2)


@pytest.mark.parametrize(
    ("metric", "unit", "scale", "told"),
    [
        ("acc", "points", 100, "in points"),
        ("nats_per_byte", "nats per byte", 1, "in nats per byte"),
        ("gold_rank", "ranks", 1, "in ranks"),
        ("in_language", "shares of 1", 1, "in shares of 1"),
        ("repetition", "shares of 1", 1, "in shares of 1"),
        ("bits_per_byte", "bits_per_byte", 1, "in its own unit"),
    ],
)
def test_a_metric_has_its_unit(made: Callable[..., Comparison], metric: str, unit: str, scale: float, told: str) -> None:
    theirs, ours = draw(1, graded=True), draw(2, graded=True)
    found = made(theirs, ours, measured=metric)
    assert found.unit == unit
    assert found.rows[1].cells["hi"].gain == pytest.approx(scale * np.mean(np.subtract(ours["xquad_hi"], theirs["xquad_hi"])))
    assert caption(found)[2].startswith(told)
    assert any(f"Smallest average gain, in {unit}, " in note for note in found.notes)
    shown = markdown_table(found)
    assert (" points" in shown) == (unit == "points")


def test_small_gains_in_nats_per_byte_are_seen(made: Callable[..., Comparison]) -> None:
    found = made({"xquad_hi": [-1.25] * 9, "xquad_de": [-0.5] * 9}, {"xquad_hi": [-1.2468] * 9, "xquad_de": [-0.5] * 9},
                 measured="nats_per_byte")  # fmt: skip
    assert "+0.0032" in markdown_table(found)
    told = "On XQuAD (nats per byte), CLAS alpha 1 gains 0.0016 nats per byte (0.0016 to 0.0016; "
    assert task_sentence(found, []).startswith(told)
    assert found.rows[1].percent is None  # of a score below 0 there is no percentage


def test_less_repetition_is_an_improvement(made: Callable[..., Comparison]) -> None:
    told = {task: {"repetition": False} for task in ("xquad_hi", "xquad_de")}
    found = made({"xquad_hi": [0.5] * 9, "xquad_de": [0.5] * 9}, {"xquad_hi": [0.25] * 9, "xquad_de": [0.75] * 9},
                 measured="repetition", higher_is_better=told)  # fmt: skip
    assert (found.rows[1].losses, found.rows[1].significant_losses, found.rows[1].significant_gains) == (1, 1, 1)
    shown = markdown_table(found)
    assert "-0.250\\*" in shown or "-0.250*" in shown
    assert "Lower repetition is better: a gain below 0 is an improvement." in found.notes
    assert answers_changed(found, found.rows[1], ["hi", "de"], 1) == ["hi"]


@pytest.mark.parametrize(("family", "metric", "rows"), [("xquad", "f1", 2), ("xquad", "nats_per_byte", 0), ("xnli", "acc", 2)])
def test_figures_of_the_paper_stand_beside_its_own_measures_only(family: str, metric: str, rows: int) -> None:
    found, notes = cited_rows(f"clas_{family}", metric)
    assert len(found) == rows
    assert rows or notes == [f"--cited: the paper has no figures for {metric} of clas_{family}."]


def test_a_language_left_alone_in_one_family_is_not_so_in_another(tmp_path: Path) -> None:
    """Also where the one is called as the other begins: `clas_xquad` and `clas_xquad_gold`."""
    tasks = {f"clas_xquad{kind}_{language}": [0.5, 0.25] * 5 for kind in ("", "_gold") for language in ("hi", "de")}
    alone = {"hi in clas_xquad_gold": "no strength was tuned", "de in clas_xquad": "no strength was tuned"}
    write_run(tmp_path / "hf", tasks)
    write_run(tmp_path / "clas", tasks, {**STEERED, "left_alone": alone})
    for family, language in (("clas_xquad", "de"), ("clas_xquad_gold", "hi")):
        notes = compare(read_runs([tmp_path]), family).notes
        assert [note for note in notes if "Left alone" in note] == [
            f"Left alone by 'clas alpha 1': {language} (no strength was tuned)."
        ]


def test_languages_that_not_all_have_are_empty_cells_and_told(tmp_path: Path) -> None:
    write_run(tmp_path / "hf", draw(1, tasks=("en", "hi", "sw")))
    write_run(tmp_path / "clas", draw(2, tasks=("en", "hi")), STEERED)
    found = compare(read_runs([tmp_path]), "xnli")
    assert (found.languages, found.average_languages) == (["en", "hi", "sw"], ["en", "hi"])
    assert "'clas alpha 1' lacks sw: averages are over what all rows have (en, hi)." in found.notes
    base, row = found.rows
    assert (set(base.cells), set(row.cells)) == ({"en", "hi", "sw"}, {"en", "hi"})
    assert base.average == pytest.approx(np.mean([base.cells[one].score for one in ("en", "hi")]))
    assert row.gain == pytest.approx(np.mean([row.cells[one].gain for one in ("en", "hi")]))
    assert (row.cells["hi"].p_holm, row.cells["en"].p_holm) == (row.cells["hi"].p_value, None)
    other = compare(read_runs([tmp_path]), "xnli", baseline="clas alpha 1").rows[1]
    assert (other.cells["sw"].gain, other.cells["sw"].p_value) == (None, None)  # where the baseline lacks it
    assert "Holm" not in legend(found)  # of one steered language there is nothing to adjust
    write_run(tmp_path / "more", draw(2, tasks=("sw",)), {**STEERED, "alpha": 2.0})
    with pytest.raises(ClasError, match="No language is in all of"):
        compare(read_runs([tmp_path]), "xnli")


def test_the_newest_results_of_a_run_count_and_steerings_are_kept_apart(tmp_path: Path) -> None:
    """All of these lie in one folder, as `lm_eval --output_path results` puts runs of one model."""
    write_run(tmp_path, {"xnli_hi": [0.0] * 5}, date="2026-01-01T00-00-00.000001")
    write_run(tmp_path, {"xnli_hi": [1.0] * 5}, date="2026-01-02T00-00-00.000001")
    write_run(tmp_path, {"xnli_sw": [1.0] * 5}, date="2026-01-03T00-00-00.000001")
    for day, alpha in ((4, 1.0), (5, 2.0)):
        write_run(tmp_path, {"xnli_hi": [1.0] * 5}, {**STEERED, "alpha": alpha}, date=f"2026-01-0{day}T00-00-00.000001")
    runs = {run.label: run for run in read_runs([tmp_path])}
    assert set(runs) == {"hf", "clas alpha 1", "clas alpha 2"}
    assert {task: scores.metrics["acc,none"] for task, scores in runs["hf"].tasks.items()} == {"xnli_hi": 1, "xnli_sw": 1}
    assert [path.name for path in runs["hf"].superseded] == ["results_2026-01-01T00-00-00.000001.json"]


def test_what_is_told_of_requests_is_of_all_files_that_count(tmp_path: Path) -> None:
    """Requests in one language add up over tasks, and those of a task that was run again count once."""
    told = {"requests": 5, "recognized": {"doc": 3, "task name": 2}}
    for day, task in ((1, "xnli_hi"), (2, "xnli_hi"), (3, "xquad_hi")):
        entry = {**STEERED, "languages": {"hi": told}, "unlike_tuning": {f"hi in {task}": f"day {day}"}}
        write_run(tmp_path, {task: [1.0] * 5}, entry, date=f"2026-01-0{day}T00-00-00.000001")
    (run,) = read_runs([tmp_path])
    assert run.steering["languages"] == {"hi": {"requests": 10, "recognized": {"doc": 6, "task name": 4}}}
    assert run.steering["unlike_tuning"] == {"hi in xnli_hi": "day 2", "hi in xquad_hi": "day 3"}


def test_where_masks_came_from_makes_no_other_run(tmp_path: Path) -> None:
    """Their hash is what counts, for tables as for the database of `--use_cache`."""
    write_run(tmp_path, {"xnli_hi": [1.0] * 5}, {**STEERED, "masks": "a"}, date="2026-01-01T00-00-00.000001")
    from_hub = {"masks": "b", "masks_repository": "somebody/b", "masks_revision": "0" * 40}
    write_run(tmp_path, {"xnli_sw": [1.0] * 5}, {**STEERED, **from_hub}, date="2026-01-02T00-00-00.000001")
    (run,) = read_runs([tmp_path])
    assert set(run.tasks) == {"xnli_hi", "xnli_sw"}


def test_runs_of_other_modules_or_pairs_are_told_apart(tmp_path: Path) -> None:
    """All in one folder, where the newest of one setup counts."""
    for day, more in enumerate(
        ({}, {"projection": "*.mlp.down_proj"}, {"projection": "*.mlp.down_too"}, {"pair": "source"}), 1
    ):
        entry = {**STEERED, "pair": "target", **more}
        write_run(tmp_path, {"xnli_hi": [1.0] * 5}, entry, date=f"2026-01-0{day}T00-00-00.000001")
    runs = read_runs([tmp_path])
    assert [run.label for run in runs] == [
        "clas alpha 1, pair target",
        "clas alpha 1, modules *.mlp.down_proj, pair target",
        "clas alpha 1, modules *.mlp.down_too, pair target",
        "clas alpha 1, pair source",
    ]
    assert not any(run.superseded for run in runs)


def test_the_arguments_that_tables_take_for_ours_are_those_of_the_model() -> None:
    own = set(inspect.signature(CLASLM.__init__).parameters) - {"self", "pretrained", "kwargs"}
    assert own == results_files._OUR_ARGUMENTS


def test_what_was_tuned_anew_replaces_the_older_run_of_a_label(tmp_path: Path) -> None:
    for day, hi in ((1, -1), (2, 4)):
        tuned = {**STEERED, "alpha": "tuned", "tuned": {"xnli": {"hi": {"alpha": hi}}}}
        write_run(tmp_path / "clas", {"xnli_hi": [1.0] * 5}, tuned, date=f"2026-01-0{day}T00-00-00.000001")
    (run,) = read_runs([f"clas={tmp_path / 'clas'}"])
    assert run.steering["tuned"]["xnli"]["hi"]["alpha"] == 4
    assert len(run.superseded) == 1
    write_run(tmp_path / "other", {"xnli_hi": [1.0] * 5}, STEERED)
    with pytest.raises(ClasError, match="Several models or settings are called 'clas'"):
        compare(read_runs([f"clas={tmp_path}"]), "xnli")


def test_a_label_may_have_other_masks_for_each_family(tmp_path: Path) -> None:
    """As a study writes it: a folder for each task, and masks that were made for its data set."""
    for label, clas in {"hf": None, "random-0": {"seed": 0}, "random-1": {"seed": 1}}.items():
        for family, graded in (("xnli", False), ("xquad", True)):
            for task, values in draw(len(label), graded=graded).items():
                language = task[-2:]
                told = {"languages": {language: {}}, "left_alone": {language: "not in the masks"} if language == "sw" else {}}
                steering = clas and {**STEERED, "method": "random", **clas, **told, "masks_hash": family}
                write_run(tmp_path / label / task, {task: values}, steering, metric="f1" if graded else "acc")
    runs = read_runs([f"{label}={tmp_path / label}" for label in ("hf", "random-0", "random-1")])
    for family in ("xnli", "xquad"):
        found = compare(runs, family)
        assert [row.label for row in found.rows] == ["hf", "random, 2 seeds"]
        assert found.rows[1].steering["masks_hash"] == family
        assert set(found.rows[1].steering["languages"]) == {"en", "hi", "sw"}
        assert "Left alone by 'random, 2 seeds': sw (not in the masks)." in found.notes


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    for name, more in {"a": {"beta": 0.4}, "b": {"beta": 0.2}, "c": {"method": "int-mu", "alpha": None}}.items():
        write_run(tmp_path / name, draw(1), {**STEERED, **more})
    write_run(tmp_path / "x=1", draw(1), model_name="other/llama")
    labels = [run.label for run in read_runs([tmp_path / "a", tmp_path / "b", tmp_path / "c"])]
    assert labels == ["clas alpha 1, beta 0.4", "clas alpha 1, beta 0.2", "int-mu"]
    assert [run.label for run in read_runs([tmp_path / "a", tmp_path / "x=1"])] == ["model clas alpha 1", "llama"]
    assert [run.label for run in read_runs([f"mine={tmp_path / 'x=1'}"])] == ["mine"]
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert [run.label for run in read_runs([tmp_path / "a", tmp_path / "copy"])] == ["clas alpha 1 [a]", "clas alpha 1 [copy]"]


def test_splits_of_one_family_are_apart_only_where_both_are(tmp_path: Path) -> None:
    write_run(tmp_path, {"clas_xnli_dev_hi": [1.0], "clas_xquad_hi": [1.0], "hellaswag": [1.0], "belebele_hin_Deva": [1.0]})
    assert list(families(read_runs([tmp_path]))) == ["belebele", "clas_xnli", "clas_xquad"]
    write_run(tmp_path / "more", {"clas_xnli_hi": [1.0]})
    assert list(families(read_runs([tmp_path]))) == ["belebele", "clas_xnli", "clas_xnli_dev", "clas_xquad"]


def test_groups_are_no_tasks(tmp_path: Path) -> None:
    write_run(tmp_path, {"xnli": [0.5], "xnli_hi": [1.0]}, group_subtasks={"xnli": ["xnli_hi"], "xnli_hi": []})
    assert list(read_runs([tmp_path])[0].tasks) == ["xnli_hi"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "nobody"}, "no run is called 'nobody'"),
        ({"metric": "bleu"}, "do not all have the metric 'bleu'; they have acc,none"),
    ],
)
def test_bad_choices_are_one_sentence(made: Callable[..., Comparison], options: dict[str, str], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        made(draw(1), draw(2), **options)


def test_what_a_method_left_alone_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "hf", draw(1))
    alone = {"en": "anchor", "sw": "not in the masks", "ur": "not in the masks", "hi in clas_xquad": "not tuned"}
    write_run(tmp_path / "clas", draw(2), {**STEERED, "left_alone": alone})
    found = compare(read_runs([tmp_path]), "xnli")
    assert [note for note in found.notes if "Left alone" in note] == ["Left alone by 'clas alpha 1': sw (not in the masks)."]
    tuned = {"xnli": {"hi": {"alpha": 0.0}, "sw": {"alpha": -2.0}}}
    write_run(tmp_path / "clas", draw(2), {**STEERED, "alpha": "tuned", "tuned": tuned})
    found = compare(read_runs([tmp_path]), "xnli")
    assert "Left alone by 'clas alpha tuned': hi (tuned to 0)." in found.notes


def test_bad_paths_and_baselines_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClasError, match="does not exist"):
        read_runs([tmp_path / "nothing"])
    with pytest.raises(ClasError, match="holds no results"):
        read_runs([tmp_path])
    (tmp_path / "results_x.json").write_text("{")
    with pytest.raises(ClasError, match="is damaged"):
        read_runs([tmp_path])
    write_run(tmp_path / "a", draw(1), STEERED)
    with pytest.raises(ClasError, match="no run is unsteered; name one with --baseline"):
        compare(read_runs([tmp_path / "a"]), "xnli")
    with pytest.raises(ClasError, match="None of the runs has tasks of 'xquad'"):
        compare(read_runs([tmp_path / "a"]), "xquad")
    write_run(tmp_path / "b", draw(1), model_name="one")
    write_run(tmp_path / "c", draw(1), model_name="two")
    with pytest.raises(ClasError, match="several runs are unsteered"):
        compare(read_runs([tmp_path / "b", tmp_path / "c"]), "xnli")
    with pytest.raises(ClasError, match="Several models or settings are called 'hf'"):
        compare(read_runs([f"hf={tmp_path / 'a'}", f"hf={tmp_path / 'b'}"]), "xnli")
