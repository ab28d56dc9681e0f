"""What `clas stability` says, as plain data."""

from __future__ import annotations

from pydantic import Field

from lm_eval_clas.disk.checked_json import Strict


class Agreement(Strict):
    """How far two profiles agree about one category in one layer.

    Attributes:
        layer: zero-based; None for all bridge layers of either profile together.
        category: dead, specific, partial, all; or `any`: the category as such.
        jaccard: of the sets of neurons; None for `any`.
        jaccard_chance: expected if the same numbers of neurons were drawn at random in each.
        kappa: Cohen's, of being in the category (of the category itself, for `any`); 0 is chance, None where undefined.
    """

    layer: int | None
    category: str
    jaccard: float | None = None
    jaccard_chance: float | None = None
    kappa: float | None = None


class Stability(Strict):
    """`stability.json`: do two profiles give the same bridge layers and masks?

    Attributes:
        ceiling: the same for two halves of one corpus; empty where the profiles have no halves.
    """

    a: str
    b: str
    languages: list[str]
    bridge_a: list[int]
    bridge_b: list[int]
    agreements: list[Agreement]
    ceiling_of: str | None = None
    ceiling: list[Agreement] = Field(default_factory=list)
