"""What steering does at one place of a model, on its device and in its dtype: h' = h * factor + shift, or a map more."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm_eval_clas.decoder.mixtures.expert_products import Routed


@dataclass(frozen=True)
class AddedMap:
    """A linear map of h that is added, h -> (h down^T) up, in float32 whatever h is: its two halves nearly cancel.

    Attributes:
        down, up: float32 [rank, width].
    """

    down: torch.Tensor
    up: torch.Tensor

    def of(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to h, in float32."""
        return (h.float() @ self.down.T) @ self.up


@dataclass(frozen=True)
class Effect:
    """What is done to one place's activation: factors and shifts of its neurons, or of what leaves a layer.

    Attributes:
        factors: [neurons], or [experts, channels].
        shift: alike; None where nothing is added.
        added: None where no map of h is added.
    """

    factors: torch.Tensor
    shift: torch.Tensor | None
    added: AddedMap | None = None

    @property
    def changes(self) -> bool:
        """Whether it does anything in this dtype."""
        shifted = self.shift is not None and bool(self.shift.any())
        return shifted or self.added is not None or not bool((self.factors == 1).all())

    def on(self, h: torch.Tensor, rows: slice | None = None) -> torch.Tensor:
        """An activation, [..., width], changed; in some rows of its first axis only."""
        if rows is None:
            return self._on_all(h)
        result = h.clone()
        result[rows] = self._on_all(h[rows])
        return result

    def _on_all(self, h: torch.Tensor) -> torch.Tensor:
        if self.added is None:
            return _changed(h, self.factors, self.shift)
        return (_changed(h, self.factors, self.shift).float() + self.added.of(h)).to(h.dtype)

    def on_routed(self, routed: Routed, rows: slice | None = None) -> torch.Tensor:
        """Activations of experts, changed by their expert's factors; those of some tokens only."""
        factors = self.factors.index_select(0, routed.experts)
        if self.shift is not None:
            changed = _changed(routed.h, factors, self.shift.index_select(0, routed.experts))
        else:
            changed = factors.mul_(routed.h)  # into the copy, as fresh memory costs more here than the product
        if rows is None:
            return changed
        steered = (routed.tokens >= rows.start) & (routed.tokens < rows.stop)
        return torch.where(steered[:, None], changed, routed.h)


def _changed(h: torch.Tensor, factors: torch.Tensor, shift: torch.Tensor | None) -> torch.Tensor:
    return h * factors if shift is None else torch.addcmul(shift, h, factors)
