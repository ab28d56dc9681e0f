"""`Intervention`: what is done in one language to every layer: h' = h * factor + shift, and perhaps a linear map of h."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LowRankMap:
    """A linear map that is added, h -> (h down^T) up; two narrow matrices, as W itself has hidden x hidden numbers.

    Attributes:
        down, up: float32 [rank, width].
        made_of: a hash of what they were computed from: numbers of the same sums may differ in the last bit elsewhere.
    """

    down: NDArray[np.float32]
    up: NDArray[np.float32]
    made_of: str

    @property
    def matrix(self) -> NDArray[np.float64]:
        """W, float64 [width, width], for which (h down^T) up is W h."""
        found: NDArray[np.float64] = self.up.T.astype(np.float64) @ self.down.astype(np.float64)
        return found


@dataclass(frozen=True)
class Intervention:
    """What is done in one language, on the axes of the place: neurons at the masks' site, or the hidden size.

    Attributes:
        factors: float32 [layers, width]; ones where nothing is multiplied.
        shifts: what is added, alike; None where the method adds nothing.
        maps: by layer, the map of h that is added too.
    """

    factors: NDArray[np.float32]
    shifts: NDArray[np.float32] | None = None
    maps: Mapping[int, LowRankMap] = field(default_factory=dict)

    @classmethod
    def none(cls, layers: int, width: int) -> Intervention:
        """Nothing is done."""
        return cls(np.ones((layers, width), dtype=np.float32))

    @property
    def layers(self) -> tuple[int, ...]:
        """Those in which anything is changed."""
        return tuple(layer for layer in range(len(self.factors)) if self.changes_at(layer))

    def changes_at(self, layer: int, here: slice = slice(None)) -> bool:
        """Whether anything is changed in a part of a layer."""
        shifted = self.shifts is not None and bool(self.shifts[layer, here].any())
        return shifted or layer in self.maps or bool((self.factors[layer, here] != 1).any())

    @property
    def digest(self) -> str:
        """16 hex digits over all of it."""
        return factors_hash(self.factors, self.shifts, self.maps)


def factors_hash(
    factors: NDArray[np.float32],
    shifts: NDArray[np.float32] | None = None,
    maps: Mapping[int, LowRankMap] | None = None,
) -> str:
    """The first 16 hex digits of the SHA-256 of factors, and of shifts and maps if there are any.

    Numbers are little-endian, in their order; a map is its layer and what it was made of.
    """
    parts = [np.ascontiguousarray(part, dtype="<f4").tobytes() for part in (factors, shifts) if part is not None]
    parts += [f"{layer} {one.made_of};".encode() for layer, one in sorted((maps or {}).items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
