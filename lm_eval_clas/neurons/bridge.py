"""Choosing the bridge layers: late layers where neurons are partly shared between languages and few are dead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.neurons.categories import DEAD, PARTIAL, category_shares


@dataclass(frozen=True)
class BridgeChoice:
    """The chosen layers (zero-based, ascending) and one sentence that says why."""

    layers: tuple[int, ...]
    why: str


def parse_layers(layers: str | int | Sequence[int], total: int) -> tuple[int, ...]:
    """Layers given by a user: `24-29` (both included), `24`, or a sequence of numbers, all zero-based.

    Raises:
        ClasError: not of that form, empty, or outside 0..total-1.
    """
    if isinstance(layers, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", layers)
        if not match:
            raise ClasError(f"layers must be a range like 24-29 or one number, not '{layers}'.")
        first, last = int(match[1]), int(match[2] or match[1])
        # A slip like 24-2900000000 must be an error below, not a list of that length.
        chosen: Sequence[int] = range(first, min(last, total) + 1)
    else:
        try:
            given = [layers] if isinstance(layers, int | float) else list(layers)
            chosen = [int(layer) for layer in given]
            if chosen != given or any(isinstance(layer, bool) for layer in given):
                raise ValueError
        except (TypeError, ValueError, OverflowError) as error:
            raise ClasError(f"layers must be a range like 24-29 or a list of numbers, not {layers!r}.") from error
    if not chosen or min(chosen) < 0 or max(chosen) >= total:
        raise ClasError(f"layers {layers} are out of range: this model has layers 0-{total - 1}, first one first.")
    return tuple(sorted(set(chosen)))


def layers_text(layers: Sequence[int]) -> str:
    """Layers as a reader gets them, and as `parse_layers` takes a run of them: `13-15` for a run, else every one."""
    run = len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if run else ", ".join(map(str, layers))


@dataclass(frozen=True)
class BridgeLayerSelector:
    """The rule that stands in for the paper's eye (it gives 24-29 for Llama 3.1 8B, 24-25 for Qwen 2.5 7B, and no rule).

    The score of a layer is its share of partial-shared neurons minus its share of dead ones. Of the layers from half
    depth on, without the last `exclude_last`, the best is taken, and with it the contiguous run of layers around it whose
    score is at least `tolerance` of the best.

    Attributes:
        exclude_last: how many of the last layers are never bridge layers.
        tolerance: share of the best score that a neighbour needs.
    """

    exclude_last: int = 2
    tolerance: float = 0.9

    def select(self, categories: NDArray[np.uint8]) -> BridgeChoice:
        """Chooses from categories, uint8 [layers, neurons].

        Raises:
            ClasError: no layer qualifies; an explicit range is then the way.
        """
        total = len(categories)
        share = category_shares(categories)
        score = share[:, PARTIAL] - share[:, DEAD]
        first, end = (total + 1) // 2, total - self.exclude_last
        # Layers without neurons that were measured are no part of a run, and do not end one.
        late = [layer for layer in range(max(first, 0), end) if share[layer].any()]
        if self.exclude_last < 0 or not late:
            raise ClasError(f"exclude-last {self.exclude_last} leaves no late layer of {total}; choose a smaller number.")
        best = max(late, key=lambda layer: float(score[layer]))
        if score[best] <= 0:
            raise ClasError(
                f"No bridge layer: in layers {first}-{end - 1} dead neurons outnumber partial-shared ones everywhere; try "
                "another statistic or threshold, or name the layers (--bridge 24-29)."
            )
        good = score >= self.tolerance * score[best]
        low = high = late.index(best)
        while low > 0 and good[late[low - 1]]:
            low -= 1
        while high + 1 < len(late) and good[late[high + 1]]:
            high += 1
        return BridgeChoice(
            tuple(late[low : high + 1]),
            f"auto: the layers around layer {best} (score {score[best]:.3f}, partial-shared minus dead) that reach "
            f"{self.tolerance:.0%} of it, among layers {first}-{end - 1} of {total}",
        )


def select_bridge_layers(
    categories: NDArray[np.uint8], layers: str | int | Sequence[int] = "auto", exclude_last: int = 2
) -> BridgeChoice:
    """The bridge layers of a model: by the default rule, or the ones that are given, which always win.

    Args:
        categories: uint8 [layers, neurons], as `categorize` returns them.
        layers: `auto`, a range like `24-29`, or numbers.
        exclude_last: for `auto`, how many of the last layers to leave out.
    """
    if layers == "auto":
        return BridgeLayerSelector(exclude_last).select(categories)
    return BridgeChoice(parse_layers(layers, len(categories)), "given by the user")
