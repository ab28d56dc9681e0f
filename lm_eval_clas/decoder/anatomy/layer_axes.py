"""The axis of neurons of each layer, where layers are not alike: which places lie on it, and the units that share a place.

Arrays over neurons are [..., layers, neurons], as wide as the widest layer; a narrower layer has no neurons at the end of its
row. A place is written `UNITSxCHANNELS`: `64x1408` for 64 experts of 1408 channels, `1x2816` for an MLP that all tokens share,
`8x128` for attention of 8 heads; places lie side by side, `1x2816+64x1408`; a layer without any is written as nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.decoder.heads import Scalar

_LAYER = re.compile(r"([1-9]\d{0,6}x[1-9]\d{0,6})(\+[1-9]\d{0,6}x[1-9]\d{0,6})*|")


@dataclass(frozen=True)
class LayerAxes:
    """The places of every layer: (units, channels of each), in their order on the axis."""

    layers: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def parse(cls, written: Sequence[str]) -> LayerAxes:
        """Reads what `written` gives.

        Raises:
            ValueError: a layer is not of that form.
        """
        for layer in written:
            if not _LAYER.fullmatch(layer):
                raise ValueError(f"'{layer[:60]}' does not say what a layer holds, as in 1x2816+64x1408")
        places = ([tuple(map(int, place.split("x"))) for place in layer.split("+") if place] for layer in written)
        return cls(tuple(tuple((one[0], one[1]) for one in layer) for layer in places))

    @property
    def written(self) -> tuple[str, ...]:
        """As a configuration keeps it."""
        return tuple("+".join(f"{units}x{channels}" for units, channels in layer) for layer in self.layers)

    @property
    def widths(self) -> list[int]:
        """Neurons by layer."""
        return [sum(units * channels for units, channels in layer) for layer in self.layers]

    @property
    def shared_out(self) -> bool:
        """Whether any place has several units: experts, which see some of the tokens, or heads, which give some channels."""
        return any(units > 1 for layer in self.layers for units, _ in layer)

    @property
    def units(self) -> int:
        """The most units that a layer has."""
        return max((sum(units for units, _ in layer) for layer in self.layers), default=0)

    @cached_property
    def unit_of(self) -> NDArray[np.int64]:
        """The unit of each neuron in its layer, int64 [layers, neurons]; -1 where there is none."""
        result = np.full((len(self.layers), max(self.widths)), -1, dtype=np.int64)
        for row, layer in zip(result, self.layers, strict=True):
            neuron = unit = 0
            for units, channels in layer:
                row[neuron : neuron + units * channels] = unit + np.repeat(np.arange(units), channels)
                neuron, unit = neuron + units * channels, unit + units
        return result

    @cached_property
    def exists(self) -> NDArray[np.bool_]:
        """Where there are neurons: bool [layers, neurons]."""
        result: NDArray[np.bool_] = self.unit_of >= 0
        return result

    def spread(self, by_unit: NDArray[Scalar]) -> NDArray[Scalar]:
        """Each unit's value for all of its neurons: [..., layers, neurons] from [..., layers, units]; else zeros."""
        taken = np.stack([by_unit[..., layer, np.maximum(row, 0)] for layer, row in enumerate(self.unit_of)], axis=-2)
        return np.where(self.exists, taken, np.zeros((), dtype=by_unit.dtype))

    def pool(self, by_neuron: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The mean of each unit's neurons: [..., layers, units] from [..., layers, neurons]; zeros where there is no unit."""
        result = np.zeros((*by_neuron.shape[:-1], self.units), dtype=by_neuron.dtype)
        for number, layer in enumerate(self.layers):
            neuron = unit = 0
            for units, channels in layer:
                part = by_neuron[..., number, neuron : neuron + units * channels]
                result[..., number, unit : unit + units] = part.reshape(*part.shape[:-1], units, channels).mean(-1)
                neuron, unit = neuron + units * channels, unit + units
        return result
