"""Where a checkpoint keeps the second product of a layer's experts: in one tensor, or in one for each expert.

Published checkpoints and those that transformers 5 writes have a matrix for each expert (`experts.7.down_proj.weight`,
`experts.7.w2.weight`), or all of them in one tensor, under several names; in memory it is always one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError

_EACH = re.compile(r"(?:^|\.)experts\.(\d+)\.(.+)$")
# What the second product is called. A shape is not enough: without a gate, the first one has the same, the other way round.
_DOWN = ("down_proj.weight", "w2.weight", "fc2.weight", "down_proj", "output_linear.weight", "w2_weight", "down_projs")
_NAMED = tuple(f".{name}" for name in _DOWN)


def expert_scales(
    name: str, shape: Sequence[int], is_transposed: bool, factors: NDArray[np.float32], there: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[np.float32]]:
    """What to multiply a checkpoint's weights by, by their names: arrays that broadcast over them.

    Args:
        name: of the module of experts.
        shape, is_transposed: of its second product in memory, [experts, hidden, channels], or the other way round.
        factors: float32 [experts, channels].
        there: the shapes of all weights in the checkpoint, by name.

    Raises:
        ClasError: it has no such weights, or several that could be it.
    """
    experts, channels = factors.shape
    hidden = shape[2] if is_transposed else shape[1]
    here = _of_layer(name, there)
    single = {key: tuple(one) for key, one in here.items() if len(one) == 3 and one[0] == experts}
    for wanted, scale in (
        ((experts, hidden, channels), factors[:, None, :]),
        ((experts, channels, hidden), factors[:, :, None]),
    ):
        found = [key for key, one in single.items() if one == wanted and key.endswith(_NAMED)]
        if len(found) == 1 and (hidden != channels or wanted == tuple(shape)):
            return {found[0]: scale}
    by_ending: dict[str, dict[int, str]] = {}
    for key, one in here.items():
        if (match := _EACH.search(key)) and match[2] in _DOWN and tuple(one) == (hidden, channels):
            by_ending.setdefault(match[2], {})[int(match[1])] = key
    whole = {ending: keys for ending, keys in by_ending.items() if sorted(keys) == list(range(experts))}
    if len(whole) != 1:
        what = (
            f"several weights that could be it ({', '.join(whole)})" if whole else "no weights of a known name and their shape"
        )
        raise ClasError(
            f"The checkpoint has {what} for the second product of the experts '{name}', so it cannot be merged; load the model "
            "with transformers 5, save it with save_pretrained, and merge that."
        )
    return {key: factors[expert][None, :] for expert, key in next(iter(whole.values())).items()}


def _of_layer(name: str, there: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """The weights of the layer that a module is in, whatever stands before the list of layers."""
    parts = name.split(".")
    number = next(i for i, part in enumerate(parts) if part.isdigit())
    layer = re.compile(rf"(?:^|\.){re.escape('.'.join(parts[number - 1 : number + 1]))}\.")
    return {key: shape for key, shape in there.items() if layer.search(key)}
