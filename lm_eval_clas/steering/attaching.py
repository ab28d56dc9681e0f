"""The check when a steerer attaches: one pass shows that every bridge projection runs once, on its scaled input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.projections import Projection, text_config
from lm_eval_clas.decoder.text_batches import device_of

Scale = Callable[[int, torch.Tensor], torch.Tensor]  # layer and its activation to the activation that it should work on
_TOKENS = 4
_STEPS = 4  # what an output may differ by: steps of the dtype between 1 and the next number


@dataclass(frozen=True)
class AttachmentCheck:
    """What the check found.

    Attributes:
        dtype: of the projections' inputs.
        difference: between outputs and what they should be, as a share of the largest output: the largest of all layers.
        tolerance: what it had to keep within: four times the dtype's `torch.finfo(dtype).eps`.
    """

    dtype: str
    difference: float
    tolerance: float

    def info(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass
class _Seen:
    """What one projection was seen to do in the pass."""

    before: list[torch.Tensor] = field(default_factory=list)  # its input, before it is scaled
    inputs: list[torch.Tensor] = field(default_factory=list)  # what it works on
    outputs: list[torch.Tensor] = field(default_factory=list)


def check_attachment(
    model: nn.Module,
    projections: Mapping[int, Projection],
    attach: Callable[[], None],
    steering: AbstractContextManager[Any],
    scale: Scale,
) -> AttachmentCheck:
    """Attaches the steering, runs the model once on a few tokens, steered, and compares.

    Args:
        model: the model.
        projections: those that are steered, by layer.
        attach: hooks them.
        steering: in whose block it is steered.
        scale: what steering should make of a layer's activation.

    Raises:
        ClasError: a projection did not run, or more than once, or its output is not that of the scaled input.
    """
    seen = {layer: _Seen() for layer in projections}
    ids = torch.arange(_TOKENS)[None] % text_config(model).vocab_size

    def run() -> None:
        with _watching(projections, seen, attach), steering:
            model(input_ids=ids.to(device_of(model)))

    with _without_dropout(projections), torch.no_grad():
        Context().run(run)  # of its own, so that nothing else is in force
        found = [_compared(model, layer, projection, seen[layer], scale) for layer, projection in projections.items()]
    return max(found, key=lambda one: one.difference)


def _compared(model: nn.Module, layer: int, projection: Projection, seen: _Seen, scale: Scale) -> AttachmentCheck:
    if (times := len(seen.inputs)) != 1:
        raise ClasError(
            f"'{projection.name}' runs {times} times and not once in a pass of {type(model).__name__} on text alone, so "
            f"layer {layer} cannot be steered there; name other modules with projection=PATTERN or other layers, and "
            "compile parts of a model only after that."
        )
    expected_input = scale(layer, seen.before[0])
    expected = projection.module.forward(expected_input)  # not by calling the module, as hooks would scale once more
    difference = (seen.outputs[0].float() - expected.float()).abs().nan_to_num(0).max().item()
    largest = expected.float().abs().nan_to_num(0).max().item()
    dtype = expected_input.dtype
    check = AttachmentCheck(
        dtype=str(dtype).removeprefix("torch."),
        difference=difference / largest if largest else difference,
        tolerance=_STEPS * torch.finfo(dtype).eps,
    )
    same_input = torch.allclose(seen.inputs[0], expected_input, rtol=0, atol=0, equal_nan=True)
    if not same_input or check.difference > check.tolerance:
        raise ClasError(
            f"'{projection.name}' does not work on the input that steering gives it (its output is off by "
            f"{check.difference:.1e} of its largest value, and {check.tolerance:.1e} is allowed); take other hooks off it, or "
            "name other modules with projection=PATTERN."
        )
    return check


@contextmanager
def _watching(projections: Mapping[int, Projection], seen: Mapping[int, _Seen], attach: Callable[[], None]) -> Iterator[None]:
    """Attaches, and notes what the projections do inside the block."""
    modules = {layer: projection.module for layer, projection in projections.items()}
    handles = [module.register_forward_pre_hook(_before(seen[layer])) for layer, module in modules.items()]
    attach()  # after the one and before the other: what else changes the input is no concern of the check
    handles += [module.register_forward_hook(_after(seen[layer]), prepend=True) for layer, module in modules.items()]
    torch.compiler.reset()  # what is compiled has the hooks of the time when it was compiled
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        torch.compiler.reset()


@contextmanager
def _without_dropout(projections: Mapping[int, Projection]) -> Iterator[None]:
    training = [part for projection in projections.values() for part in projection.module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _before(seen: _Seen) -> Any:
    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.before.append(args[0].detach().clone())

    return torch.compiler.disable(note)  # type: ignore[no-untyped-call]


def _after(seen: _Seen) -> Any:
    def note(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.inputs.append(args[0].detach().clone())
        seen.outputs.append(output.detach().clone())

    return torch.compiler.disable(note)  # type: ignore[no-untyped-call]
