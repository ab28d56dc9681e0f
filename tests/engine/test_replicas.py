"""Several engines that look like one: what is asked is shared among them, and what they answer comes back in its order."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_engines import MISSING, STEERING, all_close, choices, environment, questions, whole_texts

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.replicas.replicated_engine import ReplicatedEngine, require_replicas
from lm_eval_clas.engine.row_tables import summed_tokens

STAND_IN = ("engine_stand_in", "StandIn")


@pytest.fixture(autouse=True)
def _without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.fixture
def three() -> Iterator[ReplicatedEngine]:
    engine = ReplicatedEngine(3, engine=STAND_IN, seed=5)
    yield engine
    engine._close()
    assert not any(one.process.is_alive() for one in engine._replicas)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_prompts_are_shared_and_answers_come_in_their_order(count: int, three: ReplicatedEngine) -> None:
    prompts, params = [f"p{number}" for number in range(count)], [f"s{number}" for number in range(count)]
    for given, expected in ((params, params), ("one", ["one"] * count)):
        answers = three.generate(prompts, given, use_tqdm=True)
        assert [(prompt, own) for prompt, own, _, _ in answers] == list(zip(prompts, expected, strict=True))
        processes = [process for *_, process in answers]
        assert processes == [processes[number % 3] for number in range(count)]
        assert len(set(processes)) == min(3, count)
        assert [bar for *_, bar, _ in answers] == [number % 3 == 0 for number in range(count)]  # one bar


def test_each_has_a_seed_of_its_own_and_the_first_s_configuration_is_that_of_all(three: ReplicatedEngine) -> None:
    """With one seed, copies of a prompt that are sampled would be answered alike."""
    assert three.of_each("seed") == [5, 6, 7]
    assert three.llm_engine.model_config == "a configuration"


def test_all_processes_of_all_replicas_are_asked(three: ReplicatedEngine) -> None:
    answers = three.collective_rpc("load", args=(b"x",))
    assert [one[:3] for one in answers] == [("load", b"x", rank) for _ in range(3) for rank in range(2)]
    assert len({one[3] for one in answers}) == 3


@pytest.mark.parametrize(
    ("fails", "sentence"),
    [
        ("refused: a sentence.", "^refused: a sentence.$"),  # by ours, as it is
        ("too large", "^Replica 0 of data_parallel_size=2: ValueError: too large$"),
        ("exit", r"^Replica 0 of data_parallel_size=2 has ended \(exit code 3\); the lines above say why\. \(A script that"),
    ],
)
def test_a_replica_that_does_not_start(fails: str, sentence: str) -> None:
    with pytest.raises(ClasError, match=sentence):
        ReplicatedEngine(2, engine=STAND_IN, fails=fails)


def test_engines_are_made_in_the_context_that_is_named() -> None:
    with pytest.raises(ClasError, match=r"^refused: in its context\.$"):
        ReplicatedEngine(2, ("engine_stand_in", "refusing"), STAND_IN)


def test_where_one_fails_or_ends_all_are_ended() -> None:
    for asked, sentence in (
        (lambda engine: engine.collective_rpc("fail"), "^Replica 0 of data_parallel_size=2: KeyError: 'fail'$"),
        (lambda engine: engine.generate(["a", "end"], None), r"^Replica 1 of data_parallel_size=2 has ended \(exit code 4\)"),
    ):
        engine = ReplicatedEngine(2, engine=STAND_IN)
        with pytest.raises(ClasError, match=sentence):
            asked(engine)
        with pytest.raises(ClasError, match=r"^The engines of data_parallel_size have ended; load the model again\.$"):
            engine.collective_rpc("load")
        assert not any(one.process.is_alive() for one in engine._replicas)


def test_ctrl_c_does_not_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    engine = ReplicatedEngine(2, engine=STAND_IN)

    def interrupted(number: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(["sleep", "sleep"], None)
    assert time.monotonic() - start < 30
    assert not any(one.process.is_alive() for one in engine._replicas)


def test_a_program_ends_whatever_it_kept_from_before(tmp_path: Path) -> None:
    """Finalizers that are older than multiprocessing's end of a program run after it."""
    (tmp_path / "program.py").write_text(
        """import tempfile
kept = tempfile.TemporaryDirectory()
from lm_eval_clas.engine.replicas.replicated_engine import ReplicatedEngine
if __name__ == "__main__":
    engine = ReplicatedEngine(2, engine=("engine_stand_in", "StandIn"))
    print(len(engine.generate(["a"] * 5, None)))
""",
        encoding="utf-8",
    )
    own = environment(CUDA_VISIBLE_DEVICES="")
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=120, env=own)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_each_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    split = {"tensor_parallel_size": 2}
    for visible, expected in (("7,3,1,0,2", ["7,3", "1,0"]), ("", ["0,1", "2,3"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        engine = ReplicatedEngine(2, engine=STAND_IN, **split)
        assert engine.of_each("devices") == expected
        engine._close()
    with pytest.raises(ClasError, match=r"^data_parallel_size=3 needs 6 GPUs, 2 for each replica, and 5 can be seen\.$"):
        ReplicatedEngine(3, engine=STAND_IN, **split)
    with pytest.raises(ClasError, match=r"^data_parallel_size does not go with distributed_executor_backend=ray"):
        ReplicatedEngine(3, engine=STAND_IN, distributed_executor_backend="ray")


def test_numbers_of_replicas() -> None:
    assert [require_replicas(asked) for asked in (None, 1, "2")] == [1, 1, 2]
    for asked in (0, -1, "two", 2.5, True, [2], "1e999", "1_0"):
        with pytest.raises(
            ClasError, match=f"^data_parallel_size={re.escape(str(asked))}: give the number of replicas, 1 or more.$"
        ):
            require_replicas(asked)


def test_what_replicas_steered_is_added_up() -> None:
    assert summed_tokens([{"hi": {1: 2, 3: 2}}, {}, {"hi": {1: 5, 3: 5}, "de": {1: 4}}]) == {"hi": {1: 7, 3: 7}, "de": {1: 4}}


@pytest.mark.slow
@pytest.mark.parametrize("steering", [STEERING, {"alpha": 0}])
def test_replicas_answer_as_one_engine_does(steering: dict[str, Any], start: Callable[..., Any]) -> None:
    pytest.importorskip("vllm", reason=MISSING)
    one, two = start(**steering), start(**steering, data_parallel_size=2)
    asked = {"loglikelihood": choices(3), "loglikelihood_rolling": whole_texts("hi"), "generate_until": questions(2)}
    for kind, requests in asked.items():
        assert all_close(getattr(two, kind)(requests), getattr(one, kind)(requests))
    told, expected = (lm.get_model_info() for lm in (two, one))
    for witness in told["clas"].get("witness", {}).values():
        assert witness["check"].pop("replicas") == 2
    assert told == expected  # both replicas together steered each token once
    if steering is STEERING:
        two._asked_of[1].update(two.changes)  # as if it had been asked, and steered nothing
        with pytest.raises(
            ClasError, match=r"^Replica 1 was asked for '.*' and steered no position of it, so there is no score"
        ):
            two.take_counts()
        for lm in (one, two):
            lm.steer(alpha=2.0)
        answers = two.generate_until(questions(2))
        assert answers == one.generate_until(questions(2))
    two.model._close()
