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
from lm_eval_clas.decoder.anatomy.decoder_lists import keys_of_layer, likeliest_list

_EACH = re.compile(r"(?:^|\.)experts\.(\d+)\.(.+)$")
# What the second product is called. A shape is not enough: without a gate, the first one has the same, the other way round.
_DOWN = ("down_proj.weight", "w2.weight", "fc2.weight", "down_proj", "output_linear.weight", "w2_weight", "down_projs")
_NAMED = tuple(f".{name}" for name in _DOWN)
_Scales = dict[str, NDArray[np.float32]]


def expert_scales(
    name: str, is_transposed: bool, hidden: int, factors: NDArray[np.float32], there: Mapping[str, Sequence[int]]
) -> _Scales:
    """What to multiply a checkpoint's weights by, by their names: arrays that broadcast over them.

    Args:
        name: of the module of experts.
        is_transposed: whether its second product is [experts, channels, hidden] in memory, and not [experts, hidden, channels].
        hidden: the model's hidden size.
        factors: float32 [experts, channels].
        there: the shapes of all weights in the checkpoint, by name.

    Raises:
        ClasError: it has no such weights, or several that could be it.
    """
    lists = keys_of_layer(name, there)
    ways = {one: _second_products(is_transposed, hidden, factors, {key: there[key] for key in lists[one]}) for one in lists}
    found = [scales for one in likeliest_list(name, [one for one in ways if ways[one]]) for scales in ways[one]]
    if len(found) != 1:
        seen = ", ".join(next(iter(scales)) for scales in found[:3])
        what = f"several weights that could be it ({seen})" if found else "no weights of a known name and their shape"
        raise ClasError(
            f"The checkpoint has {what} for the second product of the experts '{name}', so it cannot be merged; load the model "
            "with transformers 5, save it with save_pretrained, and merge that."
        )
    return found[0]


def _second_products(
    is_transposed: bool, hidden: int, factors: NDArray[np.float32], here: Mapping[str, Sequence[int]]
) -> list[_Scales]:
    """Everything in one list's layer that could be the second product of these experts: one tensor, or else one for each."""
    experts, channels = factors.shape
    ways: dict[tuple[int, ...], NDArray[np.float32]] = {
        (experts, hidden, channels): factors[:, None, :],
        (experts, channels, hidden): factors[:, :, None],
    }
    names = _NAMED
    if hidden == channels:  # the shape does not tell how it lies; under the name that it has in memory, it lies as there
        ways = {(experts, hidden, hidden): factors[:, :, None] if is_transposed else factors[:, None, :]}
        names = (".down_proj",)
    single = [{key: ways[tuple(one)]} for key, one in here.items() if tuple(one) in ways and key.endswith(names)]
    if single:
        return single
    each: dict[tuple[str, str], dict[int, str]] = {}
    for key, one in here.items():
        if (match := _EACH.search(key)) and match[2] in _DOWN and tuple(one) == (hidden, channels):
            each.setdefault((key[: match.start()], match[2]), {})[int(match[1])] = key
    whole = [keys for keys in each.values() if sorted(keys) == list(range(experts))]
    return [{key: factors[expert][None, :] for expert, key in keys.items()} for keys in whole]
