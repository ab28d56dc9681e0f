"""Finding where to read and steer each layer of any Hugging Face decoder: by structure, or failing loudly.

The intermediate activation `h` of an MLP is the input of its down-projection, whatever the family calls it
(`down_proj`, `fc2`, `dense_4h_to_h`, `c_proj`), so that is the one place to read neurons and to steer them: site `mlp`. The
concatenated heads of attention are the input of its output projection (`o_proj`, `out_proj`, `dense`, `c_proj`): site `attn`.
A layer may have several such places (experts, and an MLP that all tokens share), or none (a state-space layer).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.configuration import hidden_size, text_config
from lm_eval_clas.decoder.anatomy.decoder_lists import decoder_layers, decoder_lists, layer_count, runs_on_text
from lm_eval_clas.decoder.anatomy.expert_parts import other_experts, registered_experts
from lm_eval_clas.decoder.anatomy.layer_results import hidden_in, require_hidden
from lm_eval_clas.decoder.anatomy.linear_parts import LinearPart, attention_outputs, down_projections, features, heads_of
from lm_eval_clas.decoder.mixtures.expert_products import Change, Routed
from lm_eval_clas.decoder.mixtures.expert_taps import Tap, TapHandle, tap

Site = Literal["mlp", "attn"]


@dataclass(frozen=True)
class Projection:
    """One place of a layer: a projection back to the hidden size, whose inputs are neurons; or a layer, whose output is read.

    Attributes:
        name: of the module, inside the model.
        module: linear; or all experts of a layer.
        neurons: its input width; for experts, that of all of them, one after the other.
        heads: how many attention heads share the width evenly, one after the other; None for MLPs, and where neither the
            module nor the configuration names a number that would.
        layer: of the decoder.
        start: the place of its first neuron on the layer's axis.
        experts: how many experts share the width evenly; None where every token takes the same way.
        of_output: whether it is a decoder layer, of which the hidden states that leave it are read and steered.
    """

    name: str
    module: nn.Module
    neurons: int
    heads: int | None = None
    layer: int = 0
    start: int = 0
    experts: int | None = None
    of_output: bool = False

    @property
    def here(self) -> slice:
        """Its neurons on the layer's axis."""
        return slice(self.start, self.start + self.neurons)


def find_projections(model: nn.Module, site: Site = "mlp", pattern: str | None = None) -> list[Projection]:
    """The projections of all decoder layers whose inputs are the neurons of a site, first layer first.

    `mlp`: in each layer, the linear module outside attention that maps back to the hidden size and has a sibling that
    widens the hidden size to its own input width (once, or twice for a fused gate and up projection); and the experts. `attn`:
    the last linear module of attention that maps to the hidden size and makes no queries, keys or values. Quantised and
    PEFT-wrapped linear modules count as linear; what a wrapper contains is not looked at. Layers that have no such place (a
    state-space layer), or that a pass on text alone does not run, have no neurons.

    Args:
        model: a Hugging Face decoder, bare or wrapped by PEFT.
        site: where to look.
        pattern: a shell-style pattern of module names that overrides the search, e.g. `*.mlp.down_proj`.

    Raises:
        ClasError: no such module in any layer, or several that could be it, or experts of a kind that cannot be steered; the
            message names the modules that were seen. Or the model is in slices (tensor parallelism), or is a wrapper without a
            configuration.
    """
    _require_whole(model)
    return _matching(model, site, pattern) if pattern is not None else _by_structure(model, site)


def layer_outputs(model: nn.Module) -> list[Projection]:
    """What leaves each decoder layer, first layer first: the hidden states, or residual stream.

    Raises:
        ClasError: the model has no such list of layers, or is in slices, or is a wrapper without a configuration.
    """
    _require_whole(model)
    hidden = hidden_size(model)
    for name, layers in decoder_lists(model):
        return [
            Projection(f"{name}.{number}", layer, hidden, layer=number, of_output=True) for number, layer in enumerate(layers)
        ]
    decoder_layers(model)  # says what is missing
    return []


def _require_whole(model: nn.Module) -> None:
    if not hasattr(model, "config"):
        raise ClasError(
            f"{type(model).__name__} has no configuration of a decoder; give the Hugging Face model, without wrappers such as "
            "DataParallel."
        )
    if int(getattr(model, "tp_size", None) or 1) > 1:
        raise slices_error()


def _by_structure(model: nn.Module, site: Site) -> list[Projection]:
    config, hidden = text_config(model), hidden_size(model)
    found: list[list[Projection]] = []
    doubts: list[str] = []
    for name, layers in decoder_lists(model):
        places: list[Projection] = []
        for number, layer in enumerate(layers):
            if runs_on_text(layer):
                here, doubt = _places_of(layer, site, config, hidden)
                doubts += [doubt] if doubt else []
                places += _placed([replace(one, name=f"{name}.{number}.{one.name}") for one in here], number)
        if places:
            found.append(places)
    if doubts:
        raise ClasError(f"{type(model).__name__} cannot be steered at site {site} as it is: {doubts[0]}")
    if len(found) != 1:
        what, example = _WORDS[site]
        raise ClasError(
            f"Found no single {what} in the layers of {type(model).__name__}; its modules are {_seen(model)}. Name them with "
            f"projection=PATTERN, e.g. projection={example}."
        )
    return found[0]


def _places_of(layer: nn.Module, site: Site, config: Any, hidden: int) -> tuple[list[Projection], str]:
    """One layer's places, by their names in it; or why they are in doubt."""
    if site == "attn":
        ways_out = attention_outputs(layer, hidden)
        if len(ways_out) > 1:
            return [], f"several modules of a layer could be attention's output projection ({_names(ways_out)}); {_NAME_IT}"
        return [Projection(one.name, one.module, one.width, heads_of(one, layer, config)) for one in ways_out], ""
    ways_down = down_projections(layer, hidden)
    if len({type(one.parent) for one in ways_down}) > 1:
        return [], f"several modules of a layer could be the MLP's down-projection ({_names(ways_down)}); {_NAME_IT}"
    if kind := other_experts(layer):
        beside = f" A dense MLP beside them can be named: projection=*.{ways_down[0].name}." if ways_down else ""
        return [], (
            f"it is a mixture of experts that are {kind}; supported are unquantised experts that the registry of transformers "
            f"5 runs, and any model's attention (clas profile --site attn).{beside}"
        )
    places = [Projection(one.name, one.module, one.width) for one in ways_down]
    places += [Projection(name, module, many * width, experts=many) for name, module, many, width in registered_experts(layer)]
    return places, ""


_NAME_IT = "name the right one with projection=PATTERN."


def _names(parts: Sequence[LinearPart]) -> str:
    return ", ".join(one.name for one in parts)


def _placed(places: Sequence[Projection], layer: int) -> list[Projection]:
    """Places of a layer, side by side on its axis."""
    result, start = [], 0
    for place in places:
        result.append(replace(place, layer=layer, start=start))
        start += place.neurons
    return result


def slices_error() -> ClasError:
    """What is said of tensor parallelism, in which every process sees a slice of each layer's neurons."""
    return ClasError(
        "With tensor parallelism (tp_plan), each process sees only a slice of every layer's neurons, and masks and profiles "
        "are of whole layers; drop tp_plan, and use parallelize=True for a model that is too large for one GPU."
    )


_WORDS: dict[Site, tuple[str, str]] = {
    "mlp": ("MLP down-projection", "*.mlp.down_proj"),
    "attn": ("output projection of attention", "*.self_attn.o_proj"),
}


@contextmanager
def reading(
    projections: Sequence[Projection], read: Callable[[int, torch.Tensor | Routed], None]
) -> Iterator[Callable[[], None]]:
    """Calls `read(place, h)` with the input of every projection inside the block; `place` counts the projections.

    Of layers, `h` is their output, after whatever hooks they have by now. Else it is [batch, tokens, neurons], but for the MLPs
    of OPT, which flattens the first two; of experts, it is `Routed`, once for all of them or for some at a time.

    Yields:
        a function to call after each pass, which raises a ClasError if a projection was not read once in it.
    """
    times = [0] * len(projections)

    def hook(place: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def count(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            times[place] += 1
            read(place, args[0])

        return count

    def outputs(place: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            times[place] += 1
            one = projections[place]
            read(place, require_hidden(one.name, hidden_in(output), one.neurons))

        return count

    def experts(place: int) -> Tap:
        def ask(module: nn.Module, hidden: torch.Tensor) -> Change:
            times[place] += 1

            def change(routed: Routed) -> torch.Tensor:
                read(place, routed)
                return routed.h

            return change

        return ask

    def passed() -> None:
        for projection, ran in zip(projections, times, strict=True):
            if ran != 1:
                raise ClasError(
                    f"'{projection.name}' runs {ran} times and not once in a pass on text alone, so its neurons cannot be "
                    "read; name other modules with projection=PATTERN."
                    if not projection.of_output
                    else f"The layer '{projection.name}' runs {ran} times and not once in a pass on text alone, so what leaves "
                    "it cannot be read; methods that act there do not go with this model."
                )
        times[:] = [0] * len(times)

    def hooked(place: int, module: nn.Module) -> TapHandle | RemovableHandle:
        if projections[place].of_output:
            return module.register_forward_hook(outputs(place))
        return tap(module, experts(place)) if projections[place].experts else module.register_forward_pre_hook(hook(place))

    handles = [hooked(i, one.module) for i, one in enumerate(projections)]
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()


def _matching(model: nn.Module, site: Site, pattern: str) -> list[Projection]:
    found = []
    for name, module in model.named_modules():
        if fnmatch.fnmatchcase(name, pattern) and (widths := features(module)) is not None:
            parent = model.get_submodule(name.rpartition(".")[0])
            heads = heads_of(LinearPart(name, module, *widths, parent), model, text_config(model)) if site == "attn" else None
            found.append(Projection(name, module, widths[0], heads))
    found.sort(key=lambda projection: [int(number) for number in re.findall(r"\d+", projection.name)])
    layers = layer_count(model)
    if len(found) != layers:
        raise ClasError(
            f"projection={pattern} matches {len(found)} linear modules of {type(model).__name__}, but it must match one in "
            f"each of its {layers} layers; its modules are {_seen(model)}."
        )
    return [replace(projection, layer=layer) for layer, projection in enumerate(found)]


def _seen(model: nn.Module) -> str:
    """The names of the modules in the first layer of the decoder (or at the top, where no list is found), for an error."""
    for name, layers in decoder_lists(model):
        return ", ".join(f"{name}.0.{child}" for child, _ in layers[0].named_modules() if child) or name
    return ", ".join(name for name, _ in model.named_modules() if name.count(".") < 2 and name)
