"""What makes a mask folder fit a model: type, layers, neurons, hidden size, and a hash of the configuration."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.configuration import field, hidden_size, text_config
from lm_eval_clas.decoder.anatomy.decoder_lists import layer_count
from lm_eval_clas.decoder.anatomy.layer_axes import LayerAxes
from lm_eval_clas.decoder.heads import Scalar, pool, spread
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.disk.checked_json import Strict

# Fields that change the function a checkpoint computes and that every version of transformers stores alike.
_HASHED = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)


class ModelFingerprint(Strict):
    """The shape of a model at one site. `neurons` is the width of one layer's activation there: that of the MLP's intermediate
    activation, or of attention's heads side by side; `heads`, for attention only, is how many share it. Where layers are not
    alike, or have experts, `neurons` is the width of the widest, and `holds` says what each layer holds (`LayerAxes`)."""

    model_config = ConfigDict(frozen=True)

    model_type: str
    layers: int = Field(gt=0, le=10_000)
    neurons: int = Field(gt=0, le=10_000_000)
    hidden_size: int = Field(gt=0, le=10_000_000)
    heads: int | None = Field(default=None, gt=0)
    config_hash: str
    holds: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelFingerprint:
        if self.heads is not None and self.neurons % self.heads:
            raise ValueError(f"{self.heads} heads do not share {self.neurons} channels evenly")
        if self.layout is not None and (len(self.layout.layers), max(self.layout.widths)) != (self.layers, self.neurons):
            raise ValueError(f"what its layers hold is not {self.layers} layers of at most {self.neurons} neurons")
        return self

    @cached_property
    def layout(self) -> LayerAxes | None:
        """What each layer holds; None where all are alike and their neurons are one place."""
        return None if self.holds is None else LayerAxes.parse(self.holds)

    @property
    def exists(self) -> NDArray[np.bool_] | None:
        """Where there are neurons, bool [layers, neurons]; None for everywhere."""
        return None if self.layout is None else self.layout.exists

    @property
    def has_heads(self) -> bool:
        """Whether the heads that share a layer's width are known."""
        return self.heads is not None or (self.layout is not None and self.layout.shared_out)

    @property
    def empty_layers(self) -> tuple[int, ...]:
        """The layers that have no neurons at the site."""
        return tuple(layer for layer, width in enumerate(self.widths) if not width)

    def heads_in(self, layer: int) -> int | None:
        """How many heads share a layer's width; None where it is not known."""
        if self.layout is None:
            return self.heads
        return sum(units for units, _ in self.layout.layers[layer]) if self.layout.shared_out else None

    @property
    def widths(self) -> list[int]:
        """Neurons by layer."""
        return [self.neurons] * self.layers if self.layout is None else self.layout.widths

    def pool(self, by_neuron: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The mean of each head's channels, [..., layers, heads] from [..., layers, neurons]."""
        return self.layout.pool(by_neuron) if self.layout is not None else pool(by_neuron, self.heads or 1)

    def spread(self, values: NDArray[Scalar], by_unit: bool) -> NDArray[Scalar]:
        """Values of neurons as they are, or those of heads given to each of their channels; zeros without a neuron."""
        if not by_unit:
            return values if self.exists is None else np.where(self.exists, values, np.zeros((), values.dtype))
        return self.layout.spread(values) if self.layout is not None else spread(values, self.neurons)

    @classmethod
    def of(cls, model: nn.Module, projections: list[Projection]) -> ModelFingerprint:
        """The fingerprint of a loaded model whose projections at a site are known."""
        config, layers = text_config(model), layer_count(model)
        fields = {name: field(config, name) for name in _HASHED}
        heads = {projection.heads for projection in projections}
        places = [[one for one in projections if one.layer == layer] for layer in range(layers)]
        by_layer = [tuple(_units(one) for one in here) for here in places]
        alike = len(set(by_layer)) == 1 and len(by_layer[0]) == 1 and not any(one.experts for one in projections)
        layout = LayerAxes(tuple(by_layer))
        return cls(
            model_type=config.model_type,
            layers=layers,
            neurons=max(layout.widths),
            hidden_size=hidden_size(model),
            heads=projections[0].heads if alike and len(heads) == 1 else None,
            config_hash=hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16],
            holds=None if alike else layout.written,
        )

    def require(self, model: ModelFingerprint, what: str) -> None:
        """Refuses a model of another shape.

        A different hash with the same shape is let through: a fine-tuned model with a few added tokens is still the
        model whose neurons were profiled.

        Raises:
            ClasError: type, layers, neurons, hidden size or heads differ.
        """
        for name, word in [
            ("model_type", "type"),
            ("layers", "layers"),
            ("neurons", "neurons per layer"),
            ("hidden_size", "hidden size"),
            ("heads", "attention heads"),
            ("holds", "experts and widths by layer"),
        ]:
            if getattr(self, name) != getattr(model, name):
                there, here = (_short(getattr(one, name)) for one in (self, model))
                raise ClasError(
                    f"{what} was made for another model: {word} {there} there, {here} in the model that was loaded; profile "
                    "this model, or load the one it was made for."
                )


def _units(place: Projection) -> tuple[int, int]:
    units = place.experts or place.heads or 1
    return units, place.neurons // units


def _short(value: object) -> str:
    """A value for a message; of what many layers hold, each kind once."""
    return ", ".join(dict.fromkeys(one or "none" for one in value)) if isinstance(value, tuple) else str(value)


def model_name(pretrained: str) -> str:
    """A name for a model that means something elsewhere: its Hub id, or the last part of a local path."""
    return Path(pretrained).resolve().name if Path(pretrained).exists() else pretrained
