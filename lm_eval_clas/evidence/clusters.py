"""Items that hang together, such as questions of one passage: numbered, connected, summed, and how alike. Pure functions.

What is resampled or flipped is a cluster, whole. An item that shares nothing with another is a cluster of one, so that
unclustered data are no case of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_clas.base.errors import ClasError

# Flipping k clusters gives 2**k sums, of which the two furthest from 0 mirror each other: p is never below 2 / 2**k.
FEWEST = 6
_KEPT = 0.8  # share of the fewest clusters of a language that must be left when languages are joined


@dataclass(frozen=True)
class Clusters:
    """Which items hang together.

    Attributes:
        numbers: int64 [items], the cluster of each: 0 to `count` - 1, in order of first appearance.
    """

    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[Hashable]) -> Clusters:
        """One cluster for all items of one key."""
        order: dict[Hashable, int] = {}
        return cls(np.array([order.setdefault(key, len(order)) for key in keys], dtype=np.int64))

    @classmethod
    def single(cls, items: int) -> Clusters:
        """Every item by itself."""
        return cls(np.arange(items, dtype=np.int64))

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.numbers)

    @property
    def count(self) -> int:
        """How many clusters."""
        return int(self.numbers.max(initial=-1)) + 1

    @property
    def sizes(self) -> NDArray[np.float64]:
        """float64 [clusters]: how many items each has."""
        return np.bincount(self.numbers).astype(float)

    @property
    def alone(self) -> bool:
        """Whether each item is by itself."""
        return self.count == self.items

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """float64 [..., clusters]: the sums of values [..., items]."""
        numbers = np.asarray(values, dtype=float)
        if numbers.shape[-1] != self.items:
            raise ClasError(f"Clusters of {self.items} items do not fit {numbers.shape[-1]} scores.")
        if self.alone:
            return numbers
        rows = numbers.reshape(-1, self.items)
        return np.array([np.bincount(self.numbers, row) for row in rows]).reshape(*numbers.shape[:-1], self.count)


def connected(partitions: Sequence[Clusters]) -> Clusters:
    """Items that are together in any of these are together: what all languages of parallel items can be drawn by.

    Args:
        partitions: of the same items.
    """
    first, *others = partitions
    if all(np.array_equal(first.numbers, other.numbers) for other in others):
        return first
    parents = list(range(first.items))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for one in partitions:
        representative: dict[int, int] = {}
        for item, number in enumerate(one.numbers.tolist()):
            parents[root(item)] = root(representative.setdefault(number, item))
    return Clusters.of([root(item) for item in range(first.items)])


@dataclass(frozen=True)
class Joined:
    """Languages of the same items, by their position, and the clusters that all of them are drawn by."""

    languages: tuple[int, ...]
    clusters: Clusters


def agreeing(partitions: Sequence[Clusters]) -> list[Joined]:
    """Languages whose items have the same numbers, parted into those whose clusters agree: the others are not translations.

    Translations may differ a little in what hangs together: one text, translated twice, may have become two. Joining such
    clusters costs next to none, is on the safe side, and keeps what languages gain in common. Items that only happen to be
    numbered alike, the first 100 of each language, have clusters that overlap in chains: joining them leaves a few, of which
    nothing can be told. So a language joins the first of the groups before it that leaves at least 80 % of the clusters of
    whichever language has the fewest, and no fewer than are needed to show anything, if there were so many. Languages of
    single items join any others.

    Args:
        partitions: of as many items, by language.

    Returns:
        each language in one group.
    """
    groups: list[Joined] = []
    fewest: list[int] = []
    for language, own in enumerate(partitions):
        for number, group in enumerate(groups):
            together, least = connected([group.clusters, own]), min(fewest[number], own.count)
            if together.count >= max(_KEPT * least, min(FEWEST, least)):
                groups[number], fewest[number] = Joined((*group.languages, language), together), least
                break
        else:
            groups.append(Joined((language,), own))
            fewest.append(own.count)
    return groups


def within_correlation(values: ArrayLike, clusters: Clusters) -> float | None:
    """The intraclass correlation of values within clusters, by the analysis of variance; usually 0 to 1, and noisy below 0.

    Donner 1986, International Statistical Review 54(1), section 2: (B - W) / (B + (n0 - 1) W), with B and W the mean
    squares between and within clusters, and n0 the size of clusters, less what their spread takes.

    Args:
        values: [items], such as gains.
        clusters: of the same items.

    Returns:
        None where all items are alone, or in one cluster, or all values are the same.
    """
    numbers = np.asarray(values, dtype=float)
    items, count, sizes = clusters.items, clusters.count, clusters.sizes
    if count < 2 or items == count:
        return None
    means = clusters.sums(numbers) / sizes
    between = float(sizes @ (means - numbers.mean()) ** 2) / (count - 1)
    within = float(((numbers - means[clusters.numbers]) ** 2).sum()) / (items - count)
    size = (items - float(sizes @ sizes) / items) / (count - 1)
    spread = between + (size - 1) * within
    return (between - within) / spread if spread > 0 else None
