"""What a method adds, as biases: W (s * h + t) = W diag(s) h + W t.

What is added to a layer's output is a bias, too, where one leaves the layer as it is (`ways_out.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.decoder.checkpoint import Checkpoint
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.export.biased_forms import BiasedForm, choose_form
from lm_eval_clas.export.outline import Outline, Scaling
from lm_eval_clas.export.ways_out import could_leave, ways_out


@dataclass(frozen=True)
class AddedBiases:
    """Where in a checkpoint constants go.

    Attributes:
        form: the model with biases there.
        modules: the module whose bias takes the constant, by the name of the place that it is added at: the projection itself,
            or one inside the layer.
    """

    form: BiasedForm
    modules: Mapping[str, str]

    def vectors(self, scaling: Scaling, model: Outline, checkpoint: Checkpoint) -> dict[str, NDArray[np.floating[Any]]]:
        """What is added to the checkpoint's biases, by their keys; zeros for those that the form has and the model does not.

        Raises:
            ClasError: the checkpoint lacks a weight, has another one than the model, or holds a bias that the model leaves out.
        """
        zeros = {checkpoint.bias_key(name): np.zeros(length, np.float32) for name, length in self.form.added.items()}
        if idle := sorted(set(zeros) & set(checkpoint.files)):
            raise ClasError(
                f"The checkpoint of '{model.pretrained}' holds '{idle[0]}', which the model as it is leaves out and one with "
                "biases would use, so that it cannot be merged; evaluate it with --model hf-clas."
            )
        added: dict[str, NDArray[np.floating[Any]]] = {}
        for place in _added_at(scaling, model):
            shift = _shift(scaling, place)
            added[checkpoint.bias_key(self.modules[place.name])] = shift if place.of_output else checkpoint.image(place, shift)
        return {**zeros, **added}


def find_added(model: Outline, scalings: Sequence[Scaling], checkpoint: Checkpoint) -> AddedBiases | None:
    """Where constants go in a checkpoint; None where none of these scalings adds any.

    For what leaves layers, the model is loaded, into the CPU's memory, and tried (`ways_out`).

    Raises:
        ClasError: there is no bias that would do it, the family has none, or the model cannot be loaded.
    """
    every = {place.name: place for scaling in scalings for place in _added_at(scaling, model)}
    if not every:
        return None
    method, places = scalings[0].steering.method, list(every.values())
    refused = f"method={method} cannot be merged into '{model.pretrained}': "
    instead = "evaluate it with --model hf-clas."
    if experts := [place.name for place in places if place.experts]:
        raise ClasError(f"{refused}'{experts[0]}' are experts, and what is added to their neurons is no bias; {instead}")
    wanted = [could_leave(place) if place.of_output else (place.name,) for place in places]
    found = choose_form(model.model, wanted)
    if found is not None and places[0].of_output:
        ways = _ways_of(model, [place.layer for place in places], checkpoint)
        wanted = [ways[place.layer] for place in places]
        if shut := [place.name for place, names in zip(places, wanted, strict=True) if not names]:
            raise ClasError(
                f"{refused}a norm, a factor, a gate or a mixture of experts comes between every linear module of '{shut[0]}' "
                f"and what leaves it, so that no bias is added to that as it is; {instead}"
            )
        found = choose_form(model.model, wanted)
    if found is None:
        raise ClasError(
            f"{refused}it needs a bias on '{wanted[0][0] if wanted[0] else places[0].name}', and {type(model.model).__name__} "
            f"has none there, whatever its configuration says of biases; {instead}"
        )
    form, names = found
    return AddedBiases(form, dict(zip(every, names, strict=True)))


def _added_at(scaling: Scaling, model: Outline) -> list[Projection]:
    """The places where anything is added."""
    if scaling.done.shifts is None:
        return []
    return [place for place in model.places(scaling) if _shift(scaling, place).any()]


def _shift(scaling: Scaling, place: Projection) -> NDArray[np.float32]:
    assert scaling.done.shifts is not None
    shift: NDArray[np.float32] = scaling.done.shifts[place.layer, place.here]
    return shift


def _ways_of(model: Outline, layers: Sequence[int], checkpoint: Checkpoint) -> dict[int, tuple[str, ...]]:
    kind: Any = type(model.model)
    try:
        return ways_out(kind.from_pretrained(str(checkpoint.folder), config=model.config, dtype="auto"), layers)
    except ClasError:
        raise
    except Exception as error:  # transformers and the family's own code raise every kind
        raise ClasError(
            f"Cannot try '{model.pretrained}', to see which bias leaves its layers as it is: {first_line(error)}"
        ) from error
