"""Choosing the bridge layers: late layers where neurons are partly shared between languages and few are dead."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.neurons.categories import DEAD, NO_NEURON, PARTIAL, category_counts, category_shares


@dataclass(frozen=True)
class BridgeChoice:
    """The chosen layers (zero-based, ascending) and one sentence that says why."""

    layers: tuple[int, ...]
    why: str


def parse_layers(layers: str | int | Sequence[int], total: int, empty: Collection[int] = ()) -> tuple[int, ...]:
    """Layers given by a user: `24-29` (both included), `24`, or a sequence of numbers, all zero-based.

    A range may go over layers without neurons: it is of those that have some.

    Args:
        layers: what was given.
        total: how many layers the model has.
        empty: those without neurons at the site.

    Raises:
        ClasError: not of that form, empty, or outside 0..total-1; or a layer without neurons is named, alone or in a sequence.
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
    given_empty = sorted({*chosen} & {*empty})
    full = sorted({*chosen} - {*empty})
    # A range goes from one layer with neurons to another; a layer that is named is meant.
    if given_empty and not (isinstance(layers, str) and full):
        have = [layer for layer in range(total) if layer not in empty]
        raise ClasError(
            f"layers {layers}: {'layer' if len(given_empty) == 1 else 'layers'} {layers_text(given_empty)} of this model "
            f"{'has' if len(given_empty) == 1 else 'have'} no neurons at the site of these masks, and cannot be steered; "
            f"those that have some are {layers_text(have)}."
        )
    return tuple(full)


def layers_text(layers: Sequence[int]) -> str:
    """Layers as a reader gets them, and as `parse_layers` takes a run of them: `13-15` for a run, else every one."""
    run = len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if run else ", ".join(map(str, layers))


@dataclass(frozen=True)
class BridgeLayerSelector:
    """Our rule, as the paper has none: it names layers 24-29 of Llama 3.1 8B and 24-25 of Qwen 2.5 7B.

    The score of a layer is its share of partial-shared neurons minus its share of dead ones. Of the layers from half
    depth on, without the last `exclude_last`, the best is taken, and with it the contiguous run of layers around it whose
    score is at least `tolerance` of the best. Shares are of neurons that were measured; a layer in which less than
    `least_measured` were is no part of a run, and does not end one, as if it had none.

    Attributes:
        exclude_last: how many of the last layers are never bridge layers.
        tolerance: share of the best score that a neighbour needs.
        least_measured: share of a layer's neurons; of a mixture of experts, too few tokens may have reached most of them.
    """

    exclude_last: int = 2
    tolerance: float = 0.9
    least_measured: float = 0.5

    def select(self, categories: NDArray[np.uint8]) -> BridgeChoice:
        """Chooses from categories, uint8 [layers, neurons].

        Returns:
            `layers`, zero-based and ascending, and `why`, one sentence.

        Raises:
            ClasError: no layer qualifies; then give a range.
        """
        total = len(categories)
        share = category_shares(categories)
        score = share[:, PARTIAL] - share[:, DEAD]
        first, end = (total + 1) // 2, total - self.exclude_last
        neurons = np.count_nonzero(categories != NO_NEURON, axis=1)
        have = [layer for layer in range(max(first, 0), end) if neurons[layer]]
        if self.exclude_last < 0 or not have:
            raise ClasError(f"exclude-last {self.exclude_last} leaves no late layer of {total}; choose a smaller number.")
        enough = category_counts(categories).sum(axis=1) >= self.least_measured * neurons
        late, skipped = ([layer for layer in have if enough[layer] == wanted] for wanted in (True, False))
        few = f"less than {self.least_measured:.0%} of the neurons were measured"
        if not late:
            raise ClasError(
                f"No bridge layer: in each of the layers {layers_text(have)}, {few}; profile more texts, lower "
                "--min-tokens, or name the layers (--bridge 24-29)."
            )
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
            f"{self.tolerance:.0%} of it, among layers {first}-{end - 1} of {total}"
            + (f", without {layers_text(skipped)}, where {few}" if skipped else ""),
        )


def select_bridge_layers(
    categories: NDArray[np.uint8], layers: str | int | Sequence[int] = "auto", exclude_last: int = 2
) -> BridgeChoice:
    """The bridge layers of a model: by the default rule, or the ones that are given, which always win.

    Args:
        categories: uint8 [layers, neurons], as `categorize` returns them.
        layers: `auto`, a range like `24-29`, or numbers.
        exclude_last: for `auto`, how many of the last layers to leave out.

    Returns:
        `layers`, zero-based and ascending, and `why`, one sentence.

    Raises:
        ClasError: no layer qualifies, or the given ones are not layers of the model or have no neurons.
    """
    if layers == "auto":
        return BridgeLayerSelector(exclude_last).select(categories)
    empty = np.flatnonzero((categories == NO_NEURON).all(axis=1)).tolist()
    return BridgeChoice(parse_layers(layers, len(categories), empty), "given by the user")
