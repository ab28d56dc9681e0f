"""Masks with strengths that nobody measured."""

from __future__ import annotations

from lm_eval_clas import MaskSet
from lm_eval_clas.masks.strengths import TriedSetting, TunedStrength


def with_strengths(masks: MaskSet, alphas: dict[str, dict[str, float]]) -> MaskSet:
    """Masks with strengths by task family and language."""

    def strength(alpha: float) -> TunedStrength:
        tried = [
            TriedSetting(alpha=one, beta=0.4, gamma=0.2, layers=list(masks.bridge_layers), score=0.5, gain=0, low=0, high=0)
            for one in dict.fromkeys((0.0, alpha))
        ]
        return TunedStrength(
            chosen=tried[-1], best=tried[-1], p_value=0.5, objective="metric", metric="acc", guarded=False, shared=False,
            tasks=["made"], items=1, items_sha256="0" * 64, measured=tried,
        )  # fmt: skip

    return masks.with_tuned({family: {code: strength(one) for code, one in by.items()} for family, by in alphas.items()})
