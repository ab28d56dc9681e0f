"""What steering does at one place of a model, on its device and in its dtype: h' = h * factor + shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm_eval_clas.decoder.mixtures.expert_products import Routed


@dataclass(frozen=True)
class Effect:
    """Factors and shifts of one place's neurons.

    Attributes:
        factors: [neurons], or [experts, channels].
        shift: alike; None where nothing is added.
    """

    factors: torch.Tensor
    shift: torch.Tensor | None

    @property
    def changes(self) -> bool:
        """Whether it does anything in this dtype."""
        return not bool((self.factors == 1).all()) or (self.shift is not None and bool(self.shift.any()))

    def on(self, h: torch.Tensor, rows: slice | None = None) -> torch.Tensor:
        """The activation of a linear module's input, [..., neurons], changed; in some rows of its first axis only."""
        if rows is None:
            return _changed(h, self.factors, self.shift)
        result = h.clone()
        result[rows] = _changed(h[rows], self.factors, self.shift)
        return result

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
