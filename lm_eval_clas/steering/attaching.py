"""The check when a steerer attaches: one pass shows that every bridge projection runs once, on its scaled input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.configuration import vocabulary
from lm_eval_clas.decoder.mixtures.expert_products import Change, Routed
from lm_eval_clas.decoder.mixtures.expert_taps import Tap, tap
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.decoder.text_batches import device_of
from lm_eval_clas.steering.placed_effect import Effect

EffectAt = Callable[[Projection, torch.Tensor], Effect]  # what is done at a place to an activation of this device and dtype
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
    """What one place was seen to do in the pass."""

    before: list[torch.Tensor | Routed] = field(default_factory=list)  # its input, before it is scaled
    inputs: list[torch.Tensor | Routed] = field(default_factory=list)  # what it works on
    outputs: list[torch.Tensor] = field(default_factory=list)
    entered: list[tuple[torch.Tensor, ...]] = field(default_factory=list)  # of experts: all that the module was given


def check_attachment(
    model: nn.Module,
    places: Sequence[Projection],
    attach: Callable[[], None],
    steering: AbstractContextManager[Any],
    effect: EffectAt,
) -> AttachmentCheck:
    """Attaches the steering, runs the model once on a few tokens, steered, and compares.

    Args:
        model: the model.
        places: those that are steered.
        attach: hooks them.
        steering: in whose block it is steered.
        effect: what steering should do at a place, for activations like those given.

    Raises:
        ClasError: a projection did not run, or more than once, or its output is not that of the scaled input.
    """
    seen = [_Seen() for _ in places]
    ids = torch.arange(_TOKENS)[None] % vocabulary(model)

    def run() -> None:
        with _watching(places, seen, attach), steering:
            model(input_ids=ids.to(device_of(model)))

    with _without_dropout(places), torch.no_grad():
        Context().run(run)  # of its own, so that nothing else is in force
        found = [_compared(model, place, one, effect) for place, one in zip(places, seen, strict=True)]
    return max(found, key=lambda one: one.difference)


def _compared(model: nn.Module, place: Projection, seen: _Seen, effect: EffectAt) -> AttachmentCheck:
    if (times := len(seen.outputs)) != 1:
        raise ClasError(
            f"'{place.name}' runs {times} times and not once in a pass of {type(model).__name__} on text alone, so "
            f"layer {place.layer} cannot be steered there; name other modules with projection=PATTERN or other layers, and "
            "compile parts of a model only after that."
        )
    if place.experts:
        same_input, expected = _expected_of_experts(place, seen, effect)
    else:
        assert isinstance(seen.before[0], torch.Tensor)
        assert isinstance(seen.inputs[0], torch.Tensor)
        expected_input = effect(place, seen.before[0]).on(seen.before[0])
        same_input = _equal(seen.inputs[0], expected_input)
        expected = place.module.forward(expected_input)  # not by calling the module, as hooks would scale once more
    difference = (seen.outputs[0].float() - expected.float()).abs().nan_to_num(0).max().item()
    largest = expected.float().abs().nan_to_num(0).max().item()
    dtype = expected.dtype
    check = AttachmentCheck(
        dtype=str(dtype).removeprefix("torch."),
        difference=difference / largest if largest else difference,
        tolerance=_STEPS * torch.finfo(dtype).eps * (_STEPS if place.experts else 1),
    )
    if not same_input or check.difference > check.tolerance:
        raise ClasError(
            f"'{place.name}' does not work on the input that steering gives it (its output is off by "
            f"{check.difference:.1e} of its largest value, and {check.tolerance:.1e} is allowed); take other hooks off it, or "
            "name other modules with projection=PATTERN."
        )
    return check


def _expected_of_experts(place: Projection, seen: _Seen, effect: EffectAt) -> tuple[bool, torch.Tensor]:
    """Whether experts worked on the scaled activations, and the output that the model's own code gives with scaled weights."""
    hidden = seen.entered[0][0]
    own = effect(place, hidden)
    same = len(seen.before) == len(seen.inputs)
    for before, after in zip(seen.before, seen.inputs, strict=False):
        assert isinstance(before, Routed)
        assert isinstance(after, Routed)
        same = same and _equal(after.h, own.on_routed(before))
    if own.shift is not None:  # what is added to activations is no scaled weight
        return same, seen.outputs[0]
    weight = place.module.down_proj
    assert isinstance(weight, nn.Parameter)
    scale = own.factors[:, :, None] if place.module.is_transposed else own.factors[:, None, :]
    scaled = {"down_proj": (weight * scale).detach()}
    with _switched_off(place.module):
        expected: torch.Tensor = torch.func.functional_call(place.module, scaled, seen.entered[0])
    return same, expected


@contextmanager
def _switched_off(module: Any) -> Iterator[None]:
    """Runs a module of experts by the model's own code, one expert after the other, inside the block."""
    config, before = module.config, module.config._experts_implementation
    config._experts_implementation = "eager"
    hooks, module._forward_hooks = module._forward_hooks, type(module._forward_hooks)()
    try:
        yield
    finally:
        config._experts_implementation = before
        module._forward_hooks = hooks


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


@contextmanager
def _watching(places: Sequence[Projection], seen: Sequence[_Seen], attach: Callable[[], None]) -> Iterator[None]:
    """Attaches, and notes what the projections do inside the block."""
    handles: list[Any] = [
        tap(place.module, _noting(one.before), first=True)
        if place.experts
        else place.module.register_forward_pre_hook(_before(one))
        for place, one in zip(places, seen, strict=True)
    ]
    attach()  # after the one and before the other: what else changes the input is no concern of the check
    handles += [tap(place.module, _noting(one.inputs)) for place, one in zip(places, seen, strict=True) if place.experts]
    handles += [
        place.module.register_forward_hook(_after(one, bool(place.experts)), prepend=True)
        for place, one in zip(places, seen, strict=True)
    ]
    torch.compiler.reset()  # what is compiled has the hooks of the time when it was compiled
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        torch.compiler.reset()


@contextmanager
def _without_dropout(projections: Sequence[Projection]) -> Iterator[None]:
    training = [part for projection in projections for part in projection.module.modules() if part.training]
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


def _after(seen: _Seen, experts: bool) -> Any:
    def note(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if experts:
            seen.entered.append(tuple(one.detach().clone() for one in args))
        else:
            seen.inputs.append(args[0].detach().clone())
        seen.outputs.append(output.detach().clone())

    return torch.compiler.disable(note)  # type: ignore[no-untyped-call]


def _noting(into: list[torch.Tensor | Routed]) -> Tap:
    def ask(module: nn.Module, hidden: torch.Tensor) -> Change:
        def note(routed: Routed) -> torch.Tensor:
            into.append(Routed(routed.h.detach().clone(), routed.experts, routed.tokens))
            return routed.h

        return note

    return ask
