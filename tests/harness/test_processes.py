"""Several processes give what one gives: evaluation, profiling and tuning on the CPU, once started by a real launcher."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from killing import MOMENT
from lm_eval.api.model import LM
from safetensors.numpy import load_file
from two_processes import DEADLOCKED, kill_all, run_two, start_two, told

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.base.processes import Processes, launched_as
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.disk.journal import Journal
from lm_eval_clas.disk.written import RECORD
from lm_eval_clas.harness.gathering import in_order

Run = Callable[..., tuple[int, str, str]]
needs_gathering = pytest.mark.skipif(not hasattr(LM, "gather_object"), reason="several processes need lm-eval 0.4.12")

TEXTS = {
    "hi": "आज मौसम बहुत अच्छा है और बच्चे बाहर खेल रहे हैं।",
    "de": "Heute ist das Wetter schön und die Kinder spielen draußen.",
    "zh": "今天天气很好，孩子们在外面玩。",
    "en": "The weather is fine today and the children play outside.",
    "fr": "Il fait beau aujourd'hui et les enfants jouent dehors.",
}
# Of two processes, the second gets every other item: German, English and French, but no Hindi and no Chinese.
ORDER = ["hi", "de", "hi", "en", "hi", "fr", "hi", "de", "zh"]
MIXED = [{"language": one, "text": TEXTS[one], "label": i % 2} for i, one in enumerate(ORDER)]
TURNS = [{"text": TEXTS["de" if i % 2 else "hi"] * 2, "label": 0} for i in range(9)]
TASKS = {
    "mixed_choice": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_target: label\n"
    "doc_to_choice: ['yes', 'no way']\n"
    "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "mixed_rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
    "metric_list:\n  - metric: word_perplexity\n  - metric: bits_per_byte\n",
    # Documents without a field `language`, half of them Hindi: the second process alone would find them plainly German.
    "turns_hi": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_target: label\n"
    "doc_to_choice: ['yes', 'no way']\n"
    "metric_list:\n  - metric: acc\n",
    "one_generation": "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: '{{text}}'\n"
    "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 8\nmetric_list:\n  - metric: exact_match\n",
}


# `MULTI_GPU` means several processes; without GPUs, ours take the CPU of themselves.
CONFIGURATION = "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 2\nmain_process_port: 0\n"


def launch(*program: object, **environment: str) -> tuple[str, list[dict[str, str]]]:
    """Runs a program in two processes, as on two GPUs; what they print, and what the launcher told each of them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *map(str, program)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip
    seen: dict[str, dict[str, str]] = {}
    while process.poll() is None and len(seen) < 2:
        with suppress(psutil.Error):  # one has ended meanwhile
            environments = [one.environ() for one in psutil.Process(process.pid).children(recursive=True)]
            seen |= {one["RANK"]: one for one in environments if "RANK" in one}
        time.sleep(0.05)
    try:
        output, _ = process.communicate(timeout=DEADLOCKED)
    except subprocess.TimeoutExpired:
        kill(process)
        pytest.fail(f"deadlock: {program} has not ended after {DEADLOCKED} s\n{process.communicate()[0][-3000:]}")
    assert process.returncode == 0, output[-5000:]
    return output, [seen[rank] for rank in sorted(seen)]


def kill(process: subprocess.Popen[str]) -> None:
    # The launcher gives each process a group of its own.
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(autouse=True)
def _one_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here too, files are dated to what they are dated to there."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", MOMENT)


def results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one results file of a folder, and the samples by task, in the order of their files."""
    (path,) = folder.rglob("results_*.json")
    samples = {path.name.rpartition("_")[0]: path.read_text().splitlines() for path in sorted(folder.rglob("samples_*.jsonl"))}
    return json.loads(path.read_bytes()), {name: list(map(json.loads, lines)) for name, lines in samples.items()}


def without_positions(info: dict[str, Any]) -> dict[str, Any]:
    """`config.clas` but for the positions of the witness: other batches have other padding, and share other prefixes."""
    witness = {
        language: {name: value for name, value in seen.items() if name != "positions"}
        for language, seen in info["witness"].items()
    }
    assert all(seen["positions"] >= seen["requests"] for seen in info["witness"].values())
    return {**info, "witness": witness}


def close(one: Any, other: Any) -> bool:
    """Equal, but for noise in numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-5)
    if isinstance(one, str) and isinstance(other, str):
        with suppress(ValueError):  # samples hold log-likelihoods as text
            return close(float(one), float(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


@pytest.mark.slow
@needs_gathering
def test_evaluation_in_two_processes_is_that_in_one(clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path) -> None:
    """Languages that only one process has, a task with fewer items than processes, all three kinds of request, auto."""
    masks.save(tmp_path / "masks")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, text in TASKS.items():
        items = MIXED[:1] if name.startswith("one") else TURNS if name.startswith("turns") else MIXED
        (tasks / f"{name}.json").write_text(json.dumps(items))
        data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tasks / name}.json\ntest_split: test\n"
        (tasks / f"{name}.yaml").write_text(f"task: {name}\n{data}{text}")
    options: list[object] = [
        "--model", "hf-clas", "--model_args", f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=-3,max_length=256",
        "--include_path", tasks, "--tasks", ",".join([*TASKS, "clas_mini_qa_de"]), "--limit", 9, "--batch_size", "auto",
        "--max_batch_size", 4, "--device", "cpu", "--log_samples",
    ]  # fmt: skip
    run_two(tmp_path / "here", "eval", *options, "--output_path", tmp_path / "two")
    code, _, error = clas("eval", *options, "--output_path", tmp_path / "one")
    assert code == 0, error
    (one, one_samples), (two, two_samples) = results(tmp_path / "one"), results(tmp_path / "two")
    assert close(one["results"], two["results"]), (one["results"], two["results"])
    assert close(one_samples, two_samples)
    assert one["n-samples"] == two["n-samples"]
    one["config"]["clas"], two["config"]["clas"] = (without_positions(found["config"]["clas"]) for found in (one, two))
    assert one["config"]["clas"] == two["config"]["clas"]
    assert one["config"]["clas"]["languages"]["zh"]["requests"] == 2 + 1
    assert one["config"]["clas"]["languages"]["hi"]["recognized"]["task name"] == len(TURNS) * 2
    assert close(one["config"], two["config"])


@pytest.mark.slow
@needs_gathering
def test_the_plain_command_of_accelerate_is_told_of_processes_by_its_configuration(
    clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path
) -> None:
    """`accelerate launch --num_processes 2 -m lm_eval`; without a configuration, one process runs where there are no GPUs."""
    masks.save(tmp_path / "masks")
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "default_config.yaml").write_text(CONFIGURATION)
    options: list[object] = [
        "--model", "hf-clas", "--model_args", f"pretrained={checkpoint},masks={tmp_path / 'masks'},alpha=-3,max_length=400",
        "--include_path", shipped("tasks"), "--tasks", "clas_mini_nli_hi", "--limit", 5, "--device", "cpu", "--log_samples",
    ]  # fmt: skip
    printed, seen = launch("-m", "lm_eval", *options, "--output_path", tmp_path / "two", HF_HOME=str(tmp_path))
    assert "on rank 1" in printed
    for rank, environment in enumerate(seen):  # what the other tests' processes are told, too
        expected = told(rank, int(environment["MASTER_PORT"]))
        assert {name: environment.get(name) for name in expected} == expected
    code, _, error = clas("eval", *options, "--output_path", tmp_path / "one")
    assert code == 0, error
    (one, one_samples), (two, two_samples) = results(tmp_path / "one"), results(tmp_path / "two")
    assert close(one["results"], two["results"])
    assert close(one_samples, two_samples)
    one["config"]["clas"], two["config"]["clas"] = (without_positions(found["config"]["clas"]) for found in (one, two))
    assert one["config"]["clas"] == two["config"]["clas"]


@pytest.mark.slow
@needs_gathering
def test_profile_in_two_processes_is_that_in_one(clas: Run, checkpoint: Path, tmp_path: Path) -> None:
    def options(out: str) -> list[object]:
        return [
            "profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi,de", "--samples", 5, "--batch-size", 2,
            "--max-tokens", 60, "--model-name", "small", "--level", "instance", "--device", "cpu", "--out", tmp_path / out,
        ]  # fmt: skip

    code, _, error = clas(*options("one"))
    assert code == 0, error
    (tmp_path / "two").mkdir()
    for name in (RECORD, "clas_profile.json", "hi.safetensors"):  # as a run leaves it that was stopped after Hindi
        shutil.copy(tmp_path / "one" / name, tmp_path / "two")
    printed, _ = run_two(tmp_path / "here", *options("two"))
    assert printed.count("Profiled 5 items in 3 languages") == 1
    one, two = ({path.name: path for path in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert one.keys() == two.keys()
    assert (tmp_path / "two" / RECORD).read_bytes().count(b"\n") == len(two) - 1
    for name, path in one.items():
        if name == RECORD:
            continue
        if name.endswith(".json"):
            assert path.read_bytes() == two[name].read_bytes()
            continue
        left, right = load_file(path), load_file(two[name])
        assert left.keys() == right.keys()
        for key, value in left.items():
            np.testing.assert_allclose(right[key], value, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@needs_gathering
def test_tuning_in_two_processes_killed_and_started_again_is_that_in_one(
    clas: Run, checkpoint: Path, masks: MaskSet, tmp_path: Path
) -> None:
    masks.save(tmp_path / "masks")

    def options(out: str) -> list[object]:
        shutil.copytree(tmp_path / "masks", tmp_path / f"{out}-masks", dirs_exist_ok=True)
        return [
            "tune", "--model", checkpoint, "--masks", tmp_path / f"{out}-masks", "--tasks", "clas_mini_nli_hi,clas_mini_qa_de",
            "--alphas", "-3,2", "--limit", 12, "--batch-size", 1, "--device", "cpu", "--objective", "loglikelihood",
            "--model-args", "max_length=400", "--out", tmp_path / out,
        ]  # fmt: skip

    code, _, error = clas(*options("one"))
    assert code == 0, error
    processes = start_two(tmp_path / "here", *options("two"))
    journals = tmp_path / "two" / "partial"
    deadline = time.monotonic() + DEADLOCKED
    while len([path for path in journals.glob("*") if path.stat().st_size > 2000]) < 2:
        assert all(process.is_alive() for process in processes), (tmp_path / "err.txt").read_text()[-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    kill_all(processes)
    assert list(journals.glob("*.jsonl.1")), "it ended before it could be killed"
    _, told_again = run_two(tmp_path / "here", *options("two"))
    assert told_again.count("were answered before, skipped") == 1
    assert not list(journals.iterdir())
    for name in ("scores/clas_mini_nli_hi.json", "scores/clas_mini_qa_de.json", "tuned.json", "scores.csv", "run.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert MaskSet.load(tmp_path / "two-masks").config.tuned == MaskSet.load(tmp_path / "one-masks").config.tuned


@pytest.mark.slow
@needs_gathering
def test_tensor_parallelism_is_refused_where_neurons_are_read(checkpoint: Path, tmp_path: Path) -> None:
    _, refused = run_two(
        tmp_path / "here", "profile", "--model", checkpoint, "--corpus", "mini", "--samples", 2, "--device", "cpu",
        "--model-args", "tp_plan=auto", "--out", tmp_path / "profile", expect=2,
    )  # fmt: skip
    assert "each process sees only a slice of every layer's neurons" in refused


def test_gathered_results_are_in_the_order_of_one_process() -> None:
    seeded = np.random.default_rng(0)
    for _ in range(50):
        size, documents = int(seeded.integers(2, 6)), int(seeded.integers(1, 12))
        metrics = {("acc", "none"): list(range(documents)), ("f1", "last"): [str(i) for i in range(documents)]}
        samples = [{"doc_id": i, "filter": name, "acc": i} for name in ("none", "last") for i in range(documents)]
        numbers = [range(rank, documents, size) for rank in range(size)]

        def of(rank: int, found: list[Any], numbers: list[range] = numbers, size: int = size) -> list[Any]:
            return [one for one in found if one["doc_id"] in numbers[rank]]

        parts: list[Any] = [{"t": of(rank, samples)} if numbers[rank] else {} for rank in range(size)]
        gathered = in_order(parts)
        assert gathered[0] == {"t": samples}
        assert gathered[1:] == [{"t": []}] * (size - 1)
        parts = [
            {"t": {key: values[rank::size] for key, values in metrics.items()}} if numbers[rank] else {} for rank in range(size)
        ]
        gathered = in_order(parts)
        assert gathered[0] == {"t": metrics}
        assert gathered[1:] == [{"t": {key: [] for key in metrics}}] * (size - 1)


def test_what_is_not_of_the_harness_is_gathered_as_it_is() -> None:
    for parts in ([1, 2], [{"a": 1}, {"a": 2}], [["x"], ["y"]]):
        assert in_order(parts) == parts
    with pytest.raises(ClasError, match="metrics that only some documents give"):
        in_order([{"t": {("a", "none"): [1]}}, {"t": {("b", "none"): [1]}}])


def test_processes_are_those_of_a_launcher_only(monkeypatch: pytest.MonkeyPatch, clas: Run, tmp_path: Path) -> None:
    assert launched_as() == (0, 1)
    assert Processes.launched() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert launched_as() == (0, 1)  # as some job schedulers leave it
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched_as() == (3, 4)
    assert list(Processes(3, 4).share(range(10))) == [3, 7]
    code, _, error = clas("masks", tmp_path, "--out", tmp_path / "m")
    assert code == 2
    assert "clas masks runs in one process; start it without a launcher" in error
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert launched_as() == (1, 2)


def test_journals_of_more_processes_than_now_are_read(tmp_path: Path) -> None:
    class Alone(Processes):
        """A process of several that hears nothing of the others."""

        def gather(self, value: Any) -> list[Any]:
            return [value]

    for rank in range(3):
        Journal(tmp_path / "t.jsonl", Alone(rank, 3)).write("k", "a", [rank], [[rank / 3]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.jsonl", "t.jsonl.1", "t.jsonl.2"]
    (tmp_path / "other.jsonl").write_text("kept")
    assert Journal(tmp_path / "t.jsonl").read("k", "a") == {0: [0.0], 1: [1 / 3], 2: [2 / 3]}
    assert Journal(tmp_path / "t.jsonl", Alone(1, 3)).read("k", "a") == {1: [1 / 3]}
    Journal(tmp_path / "t.jsonl").remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other.jsonl"]


def test_a_model_in_slices_is_refused(model: torch.nn.Module, checkpoint: Path, masks: MaskSet) -> None:
    from lm_eval_clas import CLASLM, ActivationSteerer

    with pytest.raises(ClasError, match="only a slice of every layer's neurons"):
        CLASLM(str(checkpoint), masks=masks, tp_plan="auto")
    model._tp_size = 2
    with pytest.raises(ClasError, match="only a slice of every layer's neurons"):
        ActivationSteerer(model, masks)
