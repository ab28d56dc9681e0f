"""The parts that need no vLLM: tables, what they do, what is refused, and both runners' seams with stand-ins."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_engines import MISSING, NEURONS, engine_model
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.refusals import SCHEDULER, refuse_config, refusing_engines
from lm_eval_clas.engine.row_steering import RowSteering
from lm_eval_clas.engine.row_tables import RowRoom, RowTables, digest_of
from lm_eval_clas.engine.runner_seams import follow_steps
from lm_eval_clas.engine.steered_layers import find_row_projections, put_rows
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.methods.intervention import Intervention, LowRankMap

LAYERS, WIDTH = 4, 6


def all_(factor: float, shift: float | None = None) -> Intervention:
    """The same is done to each number."""
    shape = (LAYERS, WIDTH)
    return Intervention(np.full(shape, factor, np.float32), None if shift is None else np.full(shape, shift, np.float32))


FACTORS = {"hi": all_(2), "de": all_(3), "fr": all_(2)}
BLENDS = {"hi": all_(0.5, 4), "de": all_(1, -2)}
VECTORS = {"hi": all_(1, 4), "de": all_(1, -2)}


def test_tables_travel_as_they_are() -> None:
    tables = RowTables.of(FACTORS.items(), [3, 1])
    again = RowTables.read(tables.dump())
    assert (again.rows, again.room) == (tables.rows, RowRoom("neurons", ("factors",), (1, 3), (WIDTH, WIDTH), 4))
    assert all(torch.equal(again.tables["factors"][layer], tables.tables["factors"][layer]) for layer in (1, 3))
    assert again.tables["factors"][1][:, 0].tolist() == [1, 2, 3, 2]  # row 0 is ones
    digests = [digest_of(name) for name in tables.rows]
    assert digests[0] == digests[2] != digests[1]  # the same factors may share what is cached
    assert len(set(tables.rows)) == 3  # and are counted apart


def test_there_are_tables_of_what_any_row_needs_and_of_nothing_else() -> None:
    assert set(RowTables.of(FACTORS.items(), [1]).tables) == {"factors"}
    assert set(RowTables.of(VECTORS.items(), [1]).tables) == {"shifts"}
    both = RowTables.read(RowTables.of({**FACTORS, **VECTORS}.items(), [1]).dump())
    assert {operand: by_layer[1][:, 0].tolist() for operand, by_layer in both.tables.items()} == {
        "factors": [1, 1, 1, 2],
        "shifts": [0, 4, -2, 0],
    }
    moved = RowTables.read(RowTables.of(VECTORS.items(), [1], "outputs").dump())
    assert (moved.place, set(moved.tables)) == ("outputs", {"shifts"})
    maps = {"hi": Intervention(all_(1).factors, maps={1: LowRankMap(all_(1).factors, all_(1).factors, "x")})}
    for done, place in ((FACTORS, "outputs"), (maps, "neurons"), ({}, "neurons")):
        with pytest.raises(ValueError, match=r"nothing to steer with|is not multiplied"):
            RowTables.of(done.items(), [1], place)  # type: ignore[arg-type]


def test_rows_that_add_something_else_share_nothing_that_is_cached() -> None:
    """Prefixes are kept apart by the first part of a name."""
    rows = [RowTables.of({"hi": one}.items(), [1]).rows[0] for one in (all_(2), all_(2, 1), all_(2, 3))]
    assert len({digest_of(name) for name in rows}) == 3


def test_tables_that_do_not_fit_are_refused() -> None:
    tables = RowTables.of(FACTORS.items(), [1, 3])
    room = RowRoom("neurons", ("factors",), (1, 2, 3), (WIDTH,) * 3, 4)
    tables.require_room(room)
    tables.require_room(replace(room, operands=("factors", "shifts")))
    with pytest.raises(ClasError, match="Layers 3 have no tables in the engine that is running"):
        tables.require_room(replace(room, layers=(1, 2), widths=(WIDTH,) * 2))
    with pytest.raises(ClasError, match="3 rows do not fit into an engine that was started with room for 2"):
        tables.require_room(replace(room, rows=3))


@pytest.mark.parametrize(
    ("done", "place", "needed"),
    [(BLENDS, "neurons", "is added to neurons"), (VECTORS, "outputs", "is added to what leaves the layers")],
)
def test_tables_of_another_kind_are_refused(done: dict[str, Intervention], place: Any, needed: str) -> None:
    room = RowRoom("neurons", ("factors",), (1,), (WIDTH,), 4)
    told = f"has tables of what multiplies neurons, and this method needs one of what {needed}; start another engine with it"
    with pytest.raises(ClasError, match=told):
        RowTables.of(done.items(), [1], place).require_room(room)


class Projection(nn.Module):
    """As vLLM's `RowParallelLinear`, of one process among two if it has a number; it hands on what it gets."""

    def __init__(self, number: int | None = None, width: int = WIDTH) -> None:
        super().__init__()
        self.input_size, self.input_is_parallel, self.tp_rank = width, number is not None, number
        self.input_size_per_partition = width // 2

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h


class Layer(nn.Module):
    """A decoder layer of vLLM that gives what it is told to."""

    def forward(self, output: Any) -> Any:
        return output


def steering_of(done: dict[str, Intervention], place: Any, *modules: nn.Module, dtype: torch.dtype = torch.float32) -> Any:
    """One with modules for layers from 1 on, and with the rows of what is done."""
    tables = RowTables.of(done.items(), range(1, 1 + len(modules)), place)
    steering = rows_of()
    steering._modules = {1 + number: module for number, module in enumerate(modules)}
    for module in modules:
        layer = next(number for number, one in steering._modules.items() if one is module)
        put_rows(module, tables.room, layer, steering._rows, torch.ones_like(steering._rows), WIDTH, dtype)
    return steering, steering.load(tables.dump())


def step(steering: RowSteering, *languages: str | None) -> None:
    """The next step has a token for each language."""
    by_language = {name.partition("/")[2]: name for name in steering._names}
    named = {f"r{number}": by_language.get(language or "") for number, language in enumerate(languages)}
    steering.note(arriving(**named))
    steering.fill(list(named), np.ones(len(named), dtype=np.int64))


H = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
H[:, 0] = torch.tensor([0.0, -0.0, 0.0, -0.0])


@pytest.mark.parametrize("done", [FACTORS, BLENDS, VECTORS])
def test_neurons_are_changed_by_their_token_s_row(done: dict[str, Intervention]) -> None:
    module = Projection()
    steering, changed = steering_of(done, "neurons", module)
    assert {name.partition("/")[2]: layers for name, layers in changed.items()} == {language: [1] for language in done}
    languages = ("hi", None, "de", None)
    step(steering, *languages)
    found = module(H)
    for language, before, after in zip(languages, H, found, strict=True):
        if language is None:
            assert torch.equal(before.view(torch.int32), after.view(torch.int32))  # to the sign of a zero
        else:
            one = done[language]
            expected = before * one.factors[1, 0] + (0 if one.shifts is None else one.shifts[1, 0])
            torch.testing.assert_close(after, expected)
    scheduled, counted = steering.take_counts()
    assert scheduled == counted[1] == dict.fromkeys((name for name in changed if name[-2:] in languages), 1)
    assert torch.equal(module(H[None])[0], found)  # as transformers' own code has it


@pytest.mark.parametrize("done", [FACTORS, BLENDS, VECTORS])
def test_each_process_changes_its_own_neurons(done: dict[str, Intervention]) -> None:
    chance = np.random.default_rng(0)

    def drawn(one: Intervention) -> Intervention:
        factors, shifts = chance.standard_normal((2, LAYERS, WIDTH)).astype(np.float32)
        return Intervention(one.factors if done is VECTORS else factors, None if one.shifts is None else shifts)

    each = {language: drawn(one) for language, one in done.items()}
    whole, halves = Projection(), [Projection(0), Projection(1)]
    parts = []
    for module, h in ((whole, H), (halves[0], H[:, : WIDTH // 2]), (halves[1], H[:, WIDTH // 2 :])):
        step(steering_of(each, "neurons", module)[0], "hi", None, "de", "hi")
        parts.append(module(h))
    torch.testing.assert_close(torch.cat(parts[1:], dim=1), parts[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("given", ["both", "whole and what nobody reads", "whole and nothing", "whole"])
def test_what_leaves_a_layer_is_moved_by_its_token_s_row(given: str) -> None:
    """Two tensors whose sum it is, or the whole of it first."""
    module, other = Layer(), torch.randn(4, WIDTH)
    steering, _ = steering_of(VECTORS, "outputs", module)
    step(steering, "de", None, None, "hi")
    more = {"both": (other,), "whole and what nobody reads": (other,), "whole and nothing": (None,), "whole": None}[given]
    output = module(H if more is None else (H, *more))
    first = output if more is None else output[0]
    assert torch.equal(first[1:3].view(torch.int32), H[1:3].view(torch.int32))
    torch.testing.assert_close(first[[0, 3]] - H[[0, 3]], torch.tensor([[-2.0], [4.0]]).expand(2, WIDTH))
    assert more is None or output[1] is more[0]
    scheduled, counted = steering.take_counts()
    assert scheduled == counted[1]


def test_what_is_too_small_for_the_dtype_is_told() -> None:
    (_, in_half), (_, in_whole) = (
        steering_of({"hi": all_(1, 1e-8), "de": all_(1, 1e-3)}, "outputs", Layer(), dtype=dtype)
        for dtype in (torch.float16, torch.float32)
    )
    assert list(in_half.values()) == [[], [1]]
    assert list(in_whole.values()) == [[1], [1]]


def test_other_tables_take_the_place_of_those_that_were_there() -> None:
    module = Projection()
    steering, _ = steering_of(BLENDS, "neurons", module)
    steering.load(RowTables.of(VECTORS.items(), [1]).dump())
    step(steering, "hi", None)
    torch.testing.assert_close(module(H[:2]), H[:2] + torch.tensor([[4.0], [0.0]]))
    steering.load(RowTables.of({"de": all_(3)}.items(), [2]).dump())  # nothing on this layer any more
    step(steering, "de", None)
    assert torch.equal(module(H[:2]), H[:2])


def test_activations_that_rows_do_not_fit_are_refused() -> None:
    projection, layer = Projection(), Layer()
    steering_of(BLENDS, "neurons", projection)
    steering_of(VECTORS, "outputs", layer)
    with pytest.raises(ClasError, match=r"arrive as torch.bfloat16 and not as torch.float32, quantised before they"):
        projection(H.bfloat16())
    with pytest.raises(ClasError, match=r"What leaves a Layer of vLLM is torch.float32 with 3 numbers for a token, and not"):
        layer(H[:, :3])
    with pytest.raises(ClasError, match="have 3 axes, and not one for tokens and one for numbers"):
        layer(H.expand(2, 4, WIDTH))
    for place in ("neurons", "outputs"):
        room = RowTables.of(VECTORS.items(), [1], place).room  # type: ignore[arg-type]
        with pytest.raises(ClasError) as told:
            put_rows(Layer(), room, 1, torch.zeros(1), torch.ones(1), 8, torch.float32)
        assert str(told.value) == (
            "What is to be steered in layer 1 has 8 numbers for a token in vLLM's Layer, and 6 in the masks; use --model "
            "hf-clas."
        )


def test_layers_of_other_widths_have_tables_of_their_own_width() -> None:
    """Masks are as wide as the widest layer; a narrower one has no neurons at the end."""
    tables = RowTables.read(RowTables.of(BLENDS.items(), [1, 3], widths=[6, 6, 6, 4]).dump())
    assert (tables.room.layers, tables.room.widths) == ((1, 3), (6, 4))
    steering = rows_of()
    steering._modules = {1: Projection(), 3: Projection(0, width=4)}
    for layer, module in steering._modules.items():
        put_rows(module, tables.room, layer, steering._rows, torch.ones_like(steering._rows), module.input_size, torch.float32)
    steering.load(tables.dump())
    step(steering, "hi", "de", None)
    for layer, width in ((1, 6), (3, 2)):
        h = H[:3, :width]
        torch.testing.assert_close(
            steering._modules[layer](h), h * torch.tensor([[0.5], [1], [1]]) + torch.tensor([[4.0], [-2], [0]])
        )
    with pytest.raises(ClasError, match="in layer 3 has 6 numbers for a token in vLLM's Projection, and 4 in the masks"):
        put_rows(Projection(), tables.room, 3, steering._rows, steering._rows, 6, torch.float32)


def test_tables_are_as_wide_as_the_masks_say_that_each_layer_is() -> None:
    model = engine_model()
    narrow = model.model.layers[3].mlp  # type: ignore[union-attr, index]
    narrow.down_proj = nn.Linear(40, 64, bias=False)  # type: ignore[union-attr]
    narrow.up_proj = narrow.gate_proj = nn.Linear(64, 40, bias=False)  # type: ignore[union-attr]
    masks = random_masks(model)
    tables = RowTables.of_languages([("hi", LanguageFactors(masks, alpha=-2.0, layers="2-3"), "hi")])
    assert tables is not None
    assert dict(zip(tables.room.layers, tables.room.widths, strict=True)) == {2: NEURONS, 3: 40}


class Hybrid(nn.Module):
    """As vLLM's LFM2: each layer mixes tokens by attention or by a convolution, and both have a row-parallel way out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in range(4))
        for number, layer in enumerate(self.layers):
            layer.add_module("self_attn" if number % 2 else "short_conv", nn.ModuleDict({"out_proj": Projection()}))
            layer.add_module("feed_forward", nn.ModuleDict({"w2": Projection()}))


@pytest.fixture
def hybrid(monkeypatch: pytest.MonkeyPatch) -> Hybrid:
    for name, known in (
        ("layers.linear", {"RowParallelLinear": Projection}),
        ("models.utils", {"PPMissingLayer": nn.Identity}),
    ):
        monkeypatch.setitem(sys.modules, f"vllm.model_executor.{name}", SimpleNamespace(**known))  # type: ignore[arg-type]
    return Hybrid()


def test_layers_that_nobody_steers_are_not_judged(hybrid: Hybrid) -> None:
    found = find_row_projections(hybrid, 4, [1, 3], "mlp")
    assert found == {layer: hybrid.layers[layer].feed_forward.w2 for layer in (1, 3)}  # type: ignore[union-attr, index]
    hybrid.layers[3] = nn.Identity()  # of another stage of a pipeline
    assert list(find_row_projections(hybrid, 4, [1, 3], "attn")) == [1]


def test_a_steered_layer_with_two_ways_out_is_refused_as_what_it_is(hybrid: Hybrid) -> None:
    with pytest.raises(ClasError) as told:
        find_row_projections(hybrid, 4, [1, 2], "mlp")
    assert str(told.value) == (
        "Layer 2 of vLLM's Hybrid has 2 projections at the site 'mlp' that can be steered, and not one (its row-parallel "
        "modules are layers.2.short_conv.out_proj, layers.2.feed_forward.w2); use --model hf-clas, or name the right one with "
        "projection=PATTERN, which --model vllm-clas has."
    )
    found = find_row_projections(hybrid, 4, [1, 2], "mlp", "*.feed_forward.w2")
    assert list(found) == [1, 2]


def test_what_processes_changed_is_joined() -> None:
    """One has other layers, and one a slice of the neurons that is left as it is."""
    tables = RowTables.of(list(FACTORS.items())[:2], [1, 2, 3])
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
    r"experts that run with each process's share of the tokens \(enable_expert_parallel with data parallelism\)": {
        "parallel_config": SimpleNamespace(enable_dbo=False, use_sequence_parallel_moe=True)
    },
    r"layers that get some of a prompt's tokens \(kv_sharing_fast_prefill\)": {
        "cache_config": SimpleNamespace(enable_prefix_caching=True, kv_sharing_fast_prefill=True)
    },
    r"engines that are added while others run \(enable_elastic_ep\)": {
        "parallel_config": SimpleNamespace(enable_dbo=False, enable_elastic_ep=True)
    },
    "pooling models": {"model_config": SimpleNamespace(runner_type="pooling")},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_steering_does_not_go_with_is_refused(what: str) -> None:
    refuse_config(config())
    with pytest.raises(ClasError, match=f"^vllm-clas does not go with {what}.*; start without it"):
        refuse_config(config(**REFUSED[what]))


def test_what_is_looked_for_has_these_names_in_vllm() -> None:
    """A name that vLLM has no more would be refused no more."""
    config = pytest.importorskip("vllm.config", reason=MISSING)
    of_parallel = ("enable_dbo", "enable_elastic_ep", "use_sequence_parallel_moe", "prefill_context_parallel_size")
    assert all(hasattr(config.ParallelConfig, name) for name in of_parallel)
    assert all(hasattr(config.CacheConfig, name) for name in ("enable_prefix_caching", "kv_sharing_fast_prefill"))


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

    def execute_model(self, scheduler_output: Any, intermediate_tensors: Any = None) -> str:
        return self._prepare_inputs(scheduler_output, np.array(scheduler_output.tokens, dtype=np.int32))


class NewerRunner:
    """As `vllm.v1.worker.gpu.model_runner` does it: a batch is returned."""

    def __init__(self, requests: list[str]) -> None:
        self.requests = requests

    def prepare_inputs(self, scheduler_output: Any, batch_req_state: Any, batch_desc: Any, num_active_loras: int) -> Any:
        return batch(self.requests, batch_req_state)

    def execute_model(self, scheduler_output: Any, intermediate_tensors: Any = None, dummy_run: bool = False) -> Any:
        tokens = np.array(scheduler_output.tokens, dtype=np.int32)
        return self.prepare_inputs(scheduler_output, tokens, None, num_active_loras=0)


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
    seen: list[Any] = []

    @contextmanager
    def step(scheduler_output: Any) -> Iterator[None]:
        seen.append(scheduler_output)
        yield
        seen.append("ended")

    one, given = runner(["a", "b"]), SimpleNamespace(tokens=[3, 1])
    follow_steps(one, step, lambda requests, tokens: seen.append((list(requests), np.asarray(tokens).tolist())))
    assert one.execute_model(given, None) is not None
    assert seen == [given, (["a", "b"], [3, 1]), "ended"]


@pytest.mark.parametrize("runner", [OlderRunner, NewerRunner])
def test_requests_are_known_to_whatever_asks_the_runner_for_a_step(runner: Any) -> None:
    """One of vLLM's executors with Ray calls the runner, and not the worker around it."""
    steering, one = rows_of(x=1), runner(["a", "b"])
    follow_steps(one, steering.step, steering.fill)
    arrived = arriving(a="x", b=None)
    arrived.tokens = [2, 1]
    one.execute_model(arrived, None)
    assert steering._rows.tolist()[:4] == [1, 1, 0, 0]


def test_unknown_runners_are_refused() -> None:
    class Other:
        def prepare_inputs(self, batch: Any) -> None: ...

    told = r"This version of vLLM prepares a step with prepare_inputs\(batch\), .* it is known to work with vLLM 0.32.0"
    with pytest.raises(ClasError, match=told):
        follow_steps(Other(), lambda scheduler_output: nullcontext(), lambda requests, tokens: None)


def test_both_signatures_are_vllms() -> None:
    """The newer runner does not start without a GPU; its signature can be read."""
    pytest.importorskip("vllm", reason=MISSING)
    import inspect

    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as Newer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner as Older

    ours = [inspect.signature(one).parameters for one in (OlderRunner._prepare_inputs, NewerRunner.prepare_inputs)]
    theirs = [inspect.signature(one).parameters for one in (Older._prepare_inputs, Newer.prepare_inputs)]
    assert [list(one) for one in ours] == [list(one) for one in theirs]
    for runner in (Older, Newer):
        assert list(inspect.signature(runner.execute_model).parameters)[1:3] == ["scheduler_output", "intermediate_tensors"]


def rows_of(**names: int) -> RowSteering:
    """One without a model, with rows by name."""
    steering = RowSteering.__new__(RowSteering)
    steering._names, steering._by_request, steering._modules = dict(names), {}, {}
    steering._rows = torch.zeros(12, dtype=torch.int64)
    steering._scheduled, steering._stepping = Counter(), threading.RLock()
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
    steering.load(RowTables.of([("z", all_(2))], [1]).dump())
    steering.fill(["a", "b"], np.array([1, 2]))
    assert not steering._rows.any()
    assert steering.take_counts() == ({"x": 1, "['y']": 2}, {})
    assert steering.take_counts() == ({}, {})


def test_counts_of_rows_that_are_no_more_are_forgotten() -> None:
    steering = rows_of(x=1)
    steering.note(arriving(a="x"))
    steering.fill(["a"], np.array([1]))
    steering.load(RowTables.of([("z", all_(2))], [1]).dump())
    assert steering.take_counts() == ({}, {})


def test_a_server_learns_of_tokens_that_were_not_steered() -> None:
    module = Projection()
    steering, _ = steering_of(FACTORS, "neurons", module)
    known = list(steering._names)
    step(steering, "hi", None)
    module(H[:2])
    steering.fill(["r1"], np.array([1]))
    module(H[:1])
    for _ in range(2):  # whoever asks leaves the counts to whoever asks next
        steering.require_steered(known)
    steering.note(arriving(a="made up by a client"))
    steering.fill(["a"], np.array([1]))
    module(H[:1])
    steering.require_steered(known)
    step(steering, "hi", "hi")  # and the layer is passed by
    for _ in range(2):
        with pytest.raises(ClasError, match=r"Layer 1 steered 1 positions of the 3 that vLLM ran for '.*/hi'"):
            steering.require_steered(known)


def test_an_engine_that_never_got_its_tables_is_found_out() -> None:
    steering, _ = steering_of(FACTORS, "neurons", Projection())
    name, steering._names = next(iter(steering._names)), {}
    steering.note(arriving(a=name))
    steering.fill(["a"], np.array([2]))
    with pytest.raises(ClasError, match=r"Layer 1 steered 0 positions of the 2 that vLLM ran for '.*/hi'"):
        steering.require_steered([name])


def test_counts_are_those_of_whole_steps() -> None:
    """What an engine is asked may come in another thread than its steps run in."""
    module = Projection()
    steering, _ = steering_of(FACTORS, "neurons", module)
    name = next(iter(steering._names))
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(steering.take_counts()))
    with steering.step(arriving(a=name)):
        steering.fill(["a"], np.array([1]))
        asking.start()
        asking.join(0.2)
        module(H[:1])
    asking.join()
    assert found == [({name: 1}, {1: {name: 1}})]
