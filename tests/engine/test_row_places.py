"""Which modules of vLLM's layers are steered: one in each layer that has rows, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest
from small_engines import MISSING
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.row_tables import RowRoom
from lm_eval_clas.engine.steered_layers import find_row_projections, own_columns

pytest.importorskip("vllm", reason=MISSING)

from vllm.model_executor.layers.linear import ReplicatedLinear, RowParallelLinear

HIDDEN, WIDTH, LAYERS = 4, 12, 3
ROOM = RowRoom("neurons", ("factors",), WIDTH, (0, 2), 3)


def linear(kind: type, wide: int = WIDTH, out: int = HIDDEN) -> Any:
    """As vLLM has it, without its weights, which want its processes."""
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.input_size, made.output_size = wide, out
    return made


def model_of(*layers: dict[str, nn.Module]) -> nn.Module:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleDict(one) for one in layers)
    return model


def places(**modules: Any) -> list[str]:
    """The names of what is found in the layers that have rows; the one between them has nothing."""
    layers = [{name: linear(*how) for name, how in modules.items()} for _ in range(LAYERS)]
    model = model_of(layers[0], {}, layers[2])
    found = find_row_projections(model, LAYERS, "mlp", ROOM, HIDDEN)
    assert list(found) == [0, 2]
    return [name for index, one in found.items() for name, module in layers[index].items() if module is one]


UP, DOWN = (ReplicatedLinear, HIDDEN, WIDTH), (RowParallelLinear,)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"attn_out": DOWN},  # attention's
        {"mixer": (RowParallelLinear, 2 * HIDDEN)},  # from as many numbers as a mixer has
        {"other": (ReplicatedLinear,)},  # of the same widths: what is parallel has the weights
        {"head": (RowParallelLinear, WIDTH, 2 * HIDDEN)},
    ],
)
def test_the_way_down_is_found_beside_others(beside: dict[str, Any]) -> None:
    assert places(up=UP, down=DOWN, **beside) == ["down", "down"]


def test_a_way_down_that_vllm_replicates_takes_all_neurons() -> None:
    assert places(up=UP, down=(ReplicatedLinear,)) == ["down", "down"]
    assert own_columns(linear(ReplicatedLinear)) == slice(WIDTH)


@pytest.mark.parametrize(
    ("modules", "count"),
    [({"up": UP}, 0), ({"one": DOWN, "two": DOWN}, 2), ({"one": (ReplicatedLinear,), "two": (ReplicatedLinear,)}, 2)],
)
def test_none_and_several_are_refused(modules: dict[str, Any], count: int) -> None:
    with pytest.raises(ClasError) as told:
        places(**modules)
    assert str(told.value) == (
        f"Layer 0 of vLLM's Module has {count} projections at the site 'mlp' from 12 numbers back to 4, and not one (its "
        f"linear modules are {', '.join(modules)}); use --model hf-clas, or name a module with projection=PATTERN."
    )


def test_a_pattern_says_which() -> None:
    model = model_of(*({"one": linear(RowParallelLinear), "two": linear(RowParallelLinear)} for _ in range(LAYERS)))
    found = find_row_projections(model, LAYERS, "mlp", ROOM, HIDDEN, "layers.*.two")
    assert {index: one is model.layers[index]["two"] for index, one in found.items()} == {0: True, 2: True}  # type: ignore
