"""Results files as other people have them: of other releases, with parts missing, made by hand, or meant to do harm."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from lm_eval.utils import hash_string
from made_runs import STEERED, draw, write_run
from small_models import Run

from lm_eval_clas import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.layouts import legend
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.comparing.tables import csv, latex, markdown_table
from lm_eval_clas.comparing.tables import json as as_json
from lm_eval_clas.comparing.task_families import families, language_of

CASES = Path(__file__).parents[1] / "data" / "table"


def compared(case: str, **options: Any) -> Comparison:
    runs = read_runs([f"a={CASES / case / 'a'}", f"b={CASES / case / 'b'}"])
    (family,) = families(runs)
    return compare(runs, family, baseline="a", **options)


def test_two_tasks_of_one_language_have_a_column_each() -> None:
    found = compared("two_scripts")
    assert found.languages == ["en", "hi-Deva", "hi-Latn"] == found.average_languages
    assert {one: round(cell.gain or 0, 6) for one, cell in found.rows[1].cells.items()} == {
        "en": 0,
        "hi-Deva": 10,
        "hi-Latn": -10,
    }
    assert found.tasks["hi-Latn"] == "belebele_hin_Latn"
    assert "| hi-Latn" in " ".join(markdown_table(found).replace("|", "| ").split())


@pytest.mark.parametrize(
    ("tasks", "columns"),
    [
        (["x_zho_Hans", "x_zho_Hant"], ["zh-Hans", "zh-Hant"]),
        (["x_hi", "x_hin_Deva", "x_hin_Latn"], ["hi-hi", "hi-hin-Deva", "hi-hin-Latn"]),
        (["x_hi", "x_hin_Latn"], ["hi-hi", "hi-hin-Latn"]),
        (["x_hi"], ["hi"]),
    ],
)
def test_columns_say_what_tells_tasks_apart(tmp_path: Path, tasks: list[str], columns: list[str]) -> None:
    write_run(tmp_path, {task: [1.0] for task in tasks})
    (found,) = families(read_runs([tmp_path])).values()
    assert sorted(found) == columns
    assert sorted(found.values()) == sorted(tasks)
    assert {language_of(column) for column in found} == {columns[0][:2]}


def test_a_language_that_one_run_lacks_is_an_empty_cell() -> None:
    found = compared("missing_language")
    assert (found.languages, found.average_languages) == (["es", "hi"], ["hi"])
    assert (found.rows[0].average, found.rows[1].average) == (40, 45)
    assert set(found.rows[1].cells) == {"hi"}
    assert "'b' lacks es: averages are over what all rows have (hi)." in found.notes
    assert not any("models" in note for note in found.notes)  # an adapter on the same base
    assert [run.label for run in read_runs([CASES / "missing_language"])] == ["hf", "hf, peft ia3"]


def test_other_chat_templates_are_compared_without_tests_and_told() -> None:
    found = compared("chat_templates")
    assert (found.test, found.rows[1].gain) == ("none", pytest.approx(5))
    (note,) = [note for note in found.notes if "another chat template" in note]
    assert note == (
        "'b' and 'a' were asked with another chat template, so that a gain is also one of the prompt; without samples "
        "(--log_samples), only their number shows that the items are the same."
    )


def test_other_hashes_with_the_same_templates_are_refused(tmp_path: Path) -> None:
    shutil.copytree(CASES / "chat_templates", tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("results_*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template_sha": None}))
    with pytest.raises(ClasError, match="other items or prompts in xnli_hi"):
        compare(read_runs([tmp_path / "runs"]), "xnli", baseline="a")


def test_a_release_before_0_4_is_read() -> None:
    (run,) = read_runs([CASES / "before_0.4" / "old.json"])
    assert {task: one.metrics for task, one in run.tasks.items()} == {
        "xnli_hi": {"acc,none": 0.33},
        "xnli_sw": {"acc,none": 0.35},
    }
    assert run.model == "x"
    with pytest.raises(ClasError, match=r"named as it names them \(results_\*.json, results.json\); name the file"):
        read_runs([CASES / "before_0.4"])


def test_samples_of_0_4_2_are_read(tmp_path: Path) -> None:
    (run,) = read_runs([CASES / "version_0.4.2"])
    logged = run.tasks["xnli_hi"].logged
    assert logged["acc"].tolist() == [1, 0, 0, 1, 0, 0]
    document = {"premise": "p0", "hypothesis": "h0", "label": 0}
    assert logged["doc_hash"][0] == hash_string(json.dumps(document, indent=2, ensure_ascii=False))
    assert set(logged["prompt_hash"]) == {hash_string("")}
    for label, scores in {"a": [1, 0, 0, 1, 0, 0], "b": [1, 1, 1, 1, 1, 1]}.items():
        shutil.copytree(CASES / "version_0.4.2", tmp_path / label)
        samples = tmp_path / label / f"pretrained__{label}_xnli_hi.jsonl"  # as that release names them
        (tmp_path / label / "_xnli_hi.jsonl").rename(samples)
        rows = [{**row, "acc": score} for row, score in zip(json.loads(samples.read_text()), scores, strict=True)]
        samples.write_text(json.dumps(rows, indent=2))
        results = json.loads((tmp_path / label / "results.json").read_text())
        results["results"]["xnli_hi"]["acc,none"] = sum(scores) / 6
        results["config"]["model_args"] = f"pretrained={label}"
        (tmp_path / label / "results.json").write_text(json.dumps(results))
    (tmp_path / "a" / "pretrained__other_xnli_hi.jsonl").write_text("[]")  # of another model in the same folder
    found = compare(read_runs([tmp_path]), "xnli", baseline="a")
    assert (found.test, found.rows[1].cells["hi"].p_value, found.rows[1].cells["hi"].items) == ("exact McNemar", 0.125, 6)
    assert "Holm" not in legend(found)


def test_filters_that_samples_do_not_name_come_in_order(tmp_path: Path) -> None:
    path = write_run(tmp_path, {"xnli_hi": [1.0, 0.0]}, samples=False)
    content = json.loads(path.read_text())
    content["results"]["xnli_hi"] = {"acc,strict": 0.5, "acc,loose": 1.0}
    path.write_text(json.dumps(content))
    rows = [{"doc_id": number, "acc": score} for scores in ([1, 0], [1, 1]) for number, score in enumerate(scores)]
    samples = tmp_path / f"samples_xnli_hi_{path.stem.removeprefix('results_')}.jsonl"
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (run,) = read_runs([tmp_path])
    assert [run.tasks["xnli_hi"].item_scores(f"acc,{one}").tolist() for one in ("strict", "loose")] == [[1, 0], [1, 1]]


def test_one_language_has_no_adjustment_over_one(tmp_path: Path) -> None:
    write_run(tmp_path / "hf", draw(1, tasks=("hi",)))
    write_run(tmp_path / "clas", draw(2, tasks=("hi",)), STEERED)
    found = compare(read_runs([tmp_path]), "xnli")
    assert found.test == "exact McNemar"
    assert "Holm" not in legend(found)


def test_rows_that_were_computed_otherwise_are_told(tmp_path: Path) -> None:
    told: dict[str, tuple[Any, Any]] = {
        "scoring path": ("stock", "fast"),
        "dtype": ("float32", "bfloat16"),
        "batch size": (8, "auto"),
        "version of lm_eval": ("0.4.12", "0.4.13"),
        "version of transformers": ("4.56.0", "5.24.0"),
    }
    for number, label in enumerate(("hf", "clas")):
        path = write_run(tmp_path / label, draw(number), {**STEERED, "scoring": "fast"} if number else None)
        content = json.loads(path.read_text())
        content["config"] |= {"model_dtype": f"torch.{told['dtype'][number]}", "batch_size": told["batch size"][number]}
        content |= {f"{one}_version": told[f"version of {one}"][number] for one in ("lm_eval", "transformers")}
        path.write_text(json.dumps(content))
    found = compare(read_runs([tmp_path]), "xnli")
    for name, (theirs, ours) in told.items():
        note = f"Rows differ in {name} ({theirs}: 'hf'; {ours}: 'clas alpha 1'), which moves scores a little by itself."
        assert note in found.notes
    write_run(tmp_path / "hf", draw(0))
    assert (
        sum("Rows differ" in note for note in compare(read_runs([tmp_path]), "xnli").notes) == 1
    )  # what is not said is not compared


@pytest.mark.parametrize("format", [(), ("--format", "md"), ("--format", "latex"), ("--format", "csv"), ("--format", "json")])
def test_nothing_that_a_file_holds_moves_the_cursor(clas: Run, tmp_path: Path, format: tuple[str, ...]) -> None:
    code, text, error = clas("table", CASES / "terminal_escapes", *format, "--out", tmp_path / "out")
    assert code == 0, error
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir())
    for shown in (text, error, written):
        assert visible(shown, keep="\n\t") == shown
    assert "[31mred" in text.replace("{[}", "[")


WRONG = (None, True, 3, -1.5, 10**30, "text", "\x1b[31m\u202e\n", "", [], ["x"], [[1]], {}, {"x": {}}, {"x": [1]})


def test_wrong_types_anywhere_are_a_sentence_with_the_files_name_or_are_read(tmp_path: Path) -> None:
    """Every value of a results file and of a sample, replaced by every kind of other value."""
    values = {"xnli_hi": [1.0, 0.0, 1.0]}
    write_run(tmp_path / "hf", values)
    more = {"lm_eval_version": "0.4.13", "chat_template_sha": "x", "task_hashes": {"xnli_hi": "y"}}
    tuned = {"tuned": {"xnli": {"hi": {"alpha": 0.0}}}, "left_alone": {"hi": "why"}, "unlike_tuning": {"hi in xnli": "why"}}
    path = write_run(tmp_path / "clas", values, {**STEERED, **tuned, "scoring": "fast", "layers": [1, 2]}, **more)
    samples = path.parent / path.name.replace("results_", "samples_xnli_hi_").replace(".json", ".jsonl")
    refused = read = 0
    for file in (path, samples):
        lines = file.read_text().splitlines() if file == samples else [file.read_text()]
        sound = json.loads(lines[0])
        for place in _places(sound):
            for wrong in WRONG:
                changed = copy.deepcopy(sound)
                _put(changed, place, wrong)
                file.write_text("\n".join([json.dumps(changed), *lines[1:]]))
                said = _refused(tmp_path, (place, wrong))
                refused, read = refused + bool(said), read + (not said)
                assert not said or any(name in said for name in (file.name, "'hf'", "the runs")), (place, wrong, said)
                assert said.isprintable()
        file.write_text("\n".join(lines))
    assert refused > 100
    assert read > 100


def _refused(folder: Path, what: object) -> str:
    """The sentence with which runs are refused; empty where they are compared and shown."""
    try:
        _everything(folder)
    except ClasError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return ""


def _everything(folder: Path) -> None:
    runs = read_runs([folder])
    for family in families(runs):
        found = compare(runs, family, resamples=100)
        for text in (markdown_table(found), latex(found), csv([found]), as_json([found])):
            assert visible(text, keep="\n\t") == text


def _places(value: Any) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(key, *rest) for key, one in inside for rest in [(), *_places(one)]]


def _put(value: Any, place: tuple[Any, ...], wrong: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = wrong
