"""Which modules of vLLM's layers are steered: one in each layer that has rows, or a refusal."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.row_tables import RowRoom
from lm_eval_clas.engine.steered_layers import find_row_projections, own_columns

HIDDEN, WIDTH, NARROW, LAYERS = 4, 12, 10, 3
ROOM = RowRoom("neurons", ("factors",), (0, 2), (WIDTH, WIDTH), 3)


class Replicated(nn.Module):
    """As vLLM's linear modules."""

    def __init__(self, wide: int = WIDTH, out: int = HIDDEN) -> None:
        super().__init__()
        self.input_size, self.output_size = wide, out


class RowParallel(Replicated):
    """As that one of them which is split among processes."""

    input_is_parallel = True


@pytest.fixture(autouse=True)
def _without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, known in (
        ("layers.linear", {"LinearBase": Replicated, "RowParallelLinear": RowParallel}),
        ("models.utils", {"PPMissingLayer": nn.Identity}),
    ):
        monkeypatch.setitem(sys.modules, f"vllm.model_executor.{name}", SimpleNamespace(**known))  # type: ignore[arg-type]


def model_of(*layers: dict[str, nn.Module]) -> Any:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.ModuleDict(one) for one in layers)
    return model


def places(room: RowRoom = ROOM, **modules: Any) -> list[str]:
    """The names of what is found in the layers that have rows; the one between them has nothing."""
    layers: list[dict[str, nn.Module]] = [{name: kind(*how) for name, (kind, *how) in modules.items()} for _ in range(LAYERS)]
    found = find_row_projections(model_of(layers[0], {}, layers[2]), LAYERS, room, HIDDEN, "mlp")
    assert list(found) == [0, 2]
    return [name for index, one in found.items() for name, module in layers[index].items() if module is one]


UP, DOWN = (Replicated, HIDDEN, WIDTH), (RowParallel,)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"attn_out": DOWN},  # attention's
        {"mixer": (RowParallel, 2 * HIDDEN)},  # from as many numbers as a mixer has
        {"other": (Replicated,)},  # of the same widths: what is parallel has the weights
        {"head": (RowParallel, WIDTH, 2 * HIDDEN)},
    ],
)
def test_the_way_down_is_found_beside_others(beside: dict[str, Any]) -> None:
    assert places(up=UP, down=DOWN, **beside) == ["down", "down"]


def test_a_way_down_that_vllm_replicates_takes_all_neurons() -> None:
    assert places(up=UP, down=(Replicated,)) == ["down", "down"]
    assert own_columns(Replicated()) == slice(WIDTH)


@pytest.mark.parametrize(
    ("modules", "count"),
    [({"up": UP}, 0), ({"one": DOWN, "two": DOWN}, 2), ({"one": (Replicated,), "two": (Replicated,)}, 2)],
)
def test_none_and_several_are_refused(modules: dict[str, Any], count: int) -> None:
    with pytest.raises(ClasError) as told:
        places(**modules)
    assert str(told.value) == (
        f"Layer 0 of vLLM's Module has {count} projections at the site 'mlp' from 12 numbers back to 4, and not one (its "
        f"linear modules are {', '.join(f'layers.0.{name}' for name in modules)}); use --model hf-clas, or name the right one "
        "with projection=PATTERN, which --model vllm-clas has."
    )


def test_a_pattern_says_which() -> None:
    model = model_of(*({"one": RowParallel(), "two": RowParallel()} for _ in range(LAYERS)))
    found = find_row_projections(model, LAYERS, ROOM, HIDDEN, "mlp", "layers.*.two")
    assert found == {index: model.layers[index]["two"] for index in (0, 2)}


def test_attention_s_way_out_and_layers_of_another_stage_of_a_pipeline() -> None:
    model = model_of(*({"attn_qkv": Replicated(HIDDEN, 3 * WIDTH), "attn_out": RowParallel()} for _ in range(LAYERS)))
    model.layers[2] = nn.Identity()
    assert find_row_projections(model, LAYERS, ROOM, HIDDEN, "attn") == {0: model.layers[0]["attn_out"]}


def test_each_layer_is_as_wide_as_its_own_table() -> None:
    model = model_of(*({"down": RowParallel(wide), "other": RowParallel(2 * WIDTH)} for wide in (WIDTH, WIDTH, NARROW)))
    room = RowRoom("neurons", ("factors",), (0, 2), (WIDTH, NARROW), 3)
    found = find_row_projections(model, LAYERS, room, HIDDEN, "mlp")
    assert found == {index: model.layers[index]["down"] for index in (0, 2)}
