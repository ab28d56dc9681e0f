"""Attention heads as units: means over a head's channels, and what holds for a head given to each of its channels.

The input of attention's output projection is the heads side by side: channels h * width to (h + 1) * width - 1 are head h's.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def pool(by_channel: NDArray[np.floating[Any]], heads: int) -> NDArray[np.floating[Any]]:
    """The mean of each head's channels: [..., heads] from [..., neurons], in the same dtype."""
    pooled: NDArray[np.floating[Any]] = by_channel.reshape(*by_channel.shape[:-1], heads, -1).mean(axis=-1)
    return pooled


def spread(by_head: NDArray[Scalar], neurons: int) -> NDArray[Scalar]:
    """Each head's value for all of its channels: [..., neurons] from [..., heads]."""
    return np.repeat(by_head, neurons // by_head.shape[-1], axis=-1)
