"""The parts that need no vLLM: tables, what is refused, and both runners' seams with stand-ins."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_engines import MISSING

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.factor_tables import FactorTables, digest_of
from lm_eval_clas.engine.refusals import SCHEDULER, refuse_config, refusing_engines
from lm_eval_clas.engine.row_steering import RowSteering
from lm_eval_clas.engine.runner_seams import follow_steps

FACTORS = {"hi": torch.full((4, 6), 2.0), "de": torch.full((4, 6), 3.0), "fr": torch.full((4, 6), 2.0)}


def test_tables_travel_as_they_are() -> None:
    tables = FactorTables.of(FACTORS.items(), [3, 1])
    again = FactorTables.read(tables.dump())
    assert (again.rows, again.layers, again.neurons) == (tables.rows, (1, 3), 6)
    assert all(torch.equal(again.tables[layer], tables.tables[layer]) for layer in (1, 3))
    assert again.tables[1][:, 0].tolist() == [1, 2, 3, 2]  # row 0 is ones
    digests = [digest_of(name) for name in tables.rows]
    assert digests[0] == digests[2] != digests[1]  # the same factors may share what is cached
    assert len(set(tables.rows)) == 3  # and are counted apart


def test_tables_that_do_not_fit_are_refused() -> None:
    tables = FactorTables.of(FACTORS.items(), [1, 3])
    tables.require_room([1, 2, 3], 4)
    with pytest.raises(ClasError, match="Layers 3 have no room"):
        tables.require_room([1, 2], 4)
    with pytest.raises(ClasError, match="3 rows of factors do not fit into an engine that was started with room for 2"):
        tables.require_room([1, 3], 3)


def test_what_processes_changed_is_joined() -> None:
    """One has other layers, and one a slice of the neurons that is left as it is."""
    tables = FactorTables.of(list(FACTORS.items())[:2], [1, 2, 3])
    hi, de = tables.rows
    assert tables.changes([{hi: [1], de: []}, {hi: [3, 2], de: []}, {hi: [2], de: []}]) == {hi: [1, 2, 3], de: []}


def config(**changed: Any) -> Any:
    parts = {
        "speculative_config": None,
        "lora_config": None,
        "kv_transfer_config": None,
        "parallel_config": SimpleNamespace(enable_dbo=False),
        "scheduler_config": SimpleNamespace(scheduler_cls=SCHEDULER),
        "cache_config": SimpleNamespace(enable_prefix_caching=True),
        "model_config": SimpleNamespace(runner_type="generate"),
    }
    return SimpleNamespace(**{**parts, **changed})


REFUSED = {
    r"speculative decoding \(speculative_config\)": {"speculative_config": object()},
    r"LoRA adapters \(enable_lora\)": {"lora_config": object()},
    r"dual-batch overlap \(enable_dbo\)": {"parallel_config": SimpleNamespace(enable_dbo=True)},
    r"context parallelism \(prefill_context_parallel_size\)": {
        "parallel_config": SimpleNamespace(enable_dbo=False, prefill_context_parallel_size=2)
    },
    r"caches of keys and values outside of the engine \(kv_transfer_config\)": {"kv_transfer_config": object()},
    "pooling models": {"model_config": SimpleNamespace(runner_type="pooling")},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_steering_does_not_go_with_is_refused(what: str) -> None:
    refuse_config(config())
    with pytest.raises(ClasError, match=f"^vllm-clas does not go with {what}.*; start without it"):
        refuse_config(config(**REFUSED[what]))


def test_a_prefix_cache_without_salts_is_refused() -> None:
    other = SimpleNamespace(scheduler_cls=None)
    with pytest.raises(
        ClasError, match="this engine's scheduler does not keep them apart; start it with scheduler_cls=lm_eval"
    ):
        refuse_config(config(scheduler_config=other))
    refuse_config(config(scheduler_config=other, cache_config=SimpleNamespace(enable_prefix_caching=False)))


class Arguments:
    """As vLLM's `EngineArgs`: whoever starts an engine has it make the configuration."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def create_engine_config(self, usage_context: Any = None, headless: bool = False) -> Any:
        return self._made


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> type[Arguments]:
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", SimpleNamespace(EngineArgs=Arguments))  # type: ignore[arg-type]
    return Arguments


def test_a_configuration_is_refused_where_it_is_made(arguments: type[Arguments]) -> None:
    """The engine may have a process of its own, whose sentences nobody would see as such."""
    fine, other = arguments(config()), arguments(config(lora_config=object()))
    with refusing_engines():
        assert fine.create_engine_config(headless=True) is fine._made
    with pytest.raises(ClasError, match="vllm-clas does not go with LoRA adapters"), refusing_engines():
        other.create_engine_config()
    assert other.create_engine_config() is other._made  # an engine that does not steer


@pytest.mark.parametrize(
    "ended",
    [
        RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}"),
        Exception(
            "WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."
        ),
    ],
)
def test_an_engine_that_ended_in_a_process_of_its_own(ended: Exception, arguments: type[Arguments]) -> None:
    told = "^vLLM's engine, which has processes of its own, has ended; the first error in the lines above says why.$"
    with pytest.raises(ClasError, match=told), refusing_engines():
        raise ended
    with pytest.raises(RuntimeError, match="of memory"), refusing_engines():
        raise RuntimeError("out of memory")


class OlderRunner:
    """As `vllm.v1.worker.gpu_model_runner` does it: arrays are filled in place."""

    def __init__(self, requests: list[str]) -> None:
        self.input_batch = SimpleNamespace(req_ids=requests)

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: Any) -> str:
        return "prepared"

    def step(self, tokens: list[int]) -> str:
        return self._prepare_inputs(None, np.array(tokens, dtype=np.int32))


class NewerRunner:
    """As `vllm.v1.worker.gpu.model_runner` does it: a batch is returned."""

    def __init__(self, requests: list[str]) -> None:
        self.requests = requests

    def prepare_inputs(self, scheduler_output: Any, batch_req_state: Any, batch_desc: Any, num_active_loras: int) -> Any:
        return batch(self.requests, batch_req_state)

    def step(self, tokens: list[int]) -> Any:
        return self.prepare_inputs(None, np.array(tokens, dtype=np.int32), None, num_active_loras=0)


def batch(requests: list[str], tokens: Any) -> Any:
    """vLLM's own `InputBatch`, where vLLM is installed."""
    known = {"req_ids": requests, "num_reqs": len(requests), "num_scheduled_tokens": tokens, "num_tokens": int(tokens.sum())}
    try:
        from dataclasses import MISSING as NO_DEFAULT
        from dataclasses import fields

        from vllm.v1.worker.gpu.input_batch import InputBatch
    except ImportError:
        return SimpleNamespace(**known)
    return InputBatch(**{f.name: known.get(f.name) for f in fields(InputBatch) if f.name in known or f.default is NO_DEFAULT})


@pytest.mark.parametrize("runner", [OlderRunner, NewerRunner])
def test_both_runners_say_which_tokens_a_step_has(runner: Any) -> None:
    seen = []
    one = runner(["a", "b"])
    follow_steps(one, lambda requests, tokens: seen.append((list(requests), np.asarray(tokens).tolist())))
    assert one.step([3, 1]) is not None
    assert seen == [(["a", "b"], [3, 1])]


def test_unknown_runners_are_refused() -> None:
    class Other:
        def prepare_inputs(self, batch: Any) -> None: ...

    told = r"This version of vLLM prepares a step with prepare_inputs\(batch\), .* it is known to work with vLLM 0.32.0"
    with pytest.raises(ClasError, match=told):
        follow_steps(Other(), lambda requests, tokens: None)


def test_both_signatures_are_vllms() -> None:
    """The newer runner does not start without a GPU; its signature can be read."""
    pytest.importorskip("vllm", reason=MISSING)
    import inspect

    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as Newer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Older

    ours = [inspect.signature(one).parameters for one in (OlderRunner._prepare_inputs, NewerRunner.prepare_inputs)]
    theirs = [inspect.signature(one).parameters for one in (Older._prepare_inputs, Newer.prepare_inputs)]
    assert [list(one) for one in ours] == [list(one) for one in theirs]


def rows_of(**names: int) -> RowSteering:
    """One without a model, with rows by name."""
    steering = RowSteering.__new__(RowSteering)
    steering._names, steering._by_request, steering._modules = dict(names), {}, {}
    steering._rows = torch.zeros(12, dtype=torch.int64)
    from collections import Counter

    steering._scheduled = Counter()
    return steering


def arriving(ended: tuple[str, ...] = (), **names: str | None) -> Any:
    def request(name: str | None) -> Any:
        return SimpleNamespace(extra_args={"clas": name} if name else None)

    new = [SimpleNamespace(req_id=one, sampling_params=request(name)) for one, name in names.items()]
    return SimpleNamespace(finished_req_ids=set(ended), scheduled_new_reqs=new)


def test_each_token_gets_the_row_of_its_request_and_no_other_gets_any() -> None:
    steering = rows_of(x=1, y=2)
    steering.note(arriving(a="x", b=None, c="y"))
    steering.fill(["c", "a", "b"], np.array([2, 3, 1]))
    assert steering._rows.tolist() == [2, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    steering.note(arriving(("a",), d="x"))
    steering.fill(["b", "d"], np.array([1, 1]))
    assert steering._rows.tolist() == [0, 1] + [0] * 10
    assert steering.take_counts() == ({"x": 4, "y": 2}, {})
    steering.idle()
    assert not steering._rows.any()


def test_a_name_without_a_row_is_told_by_the_counts_and_ends_nothing() -> None:
    """Factors that were replaced while a request ran, and whatever a client made up."""
    steering = rows_of(x=1)
    steering.note(arriving(a="x", b=["y"]))  # type: ignore[arg-type]
    steering.load(FactorTables.of([("z", torch.ones(2, 2))], [1]).dump())
    steering.fill(["a", "b"], np.array([1, 2]))
    assert not steering._rows.any()
    assert steering.take_counts() == ({"x": 1, "['y']": 2}, {})
    assert steering.take_counts() == ({}, {})


def test_counts_of_rows_that_are_no_more_are_forgotten() -> None:
    steering = rows_of(x=1)
    steering.note(arriving(a="x"))
    steering.fill(["a"], np.array([1]))
    steering.load(FactorTables.of([("z", torch.ones(2, 2))], [1]).dump())
    assert steering.take_counts() == ({}, {})
