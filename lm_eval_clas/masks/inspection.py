"""What is in a mask folder, for people and for programs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.categories import CATEGORIES, DEAD, PARTIAL, UNMEASURED, category_counts, category_shares


def overlap(masks: MaskSet) -> NDArray[np.float64]:
    """Jaccard overlap of the neurons active in two languages, within the bridge layers: float64 [languages, languages]."""
    active = masks.active[:, list(masks.bridge_layers)].reshape(len(masks.languages), -1)
    result = np.eye(len(active))
    for one, other in combinations(range(len(active)), 2):
        union = np.count_nonzero(active[one] | active[other])
        both = np.count_nonzero(active[one] & active[other])
        result[one, other] = result[other, one] = both / union if union else 1.0
    return result


def summary(masks: MaskSet) -> dict[str, Any]:
    """Everything `clas inspect` shows, as plain JSON."""
    share = category_shares(masks.categories)
    count = category_counts(masks.categories)
    config = masks.config
    bridge = list(masks.bridge_layers)
    return {
        "model": config.model.model_dump(),
        "corpus": config.corpus.model_dump(),
        "languages": list(masks.languages),
        "anchor": masks.anchor,
        "site": config.site,
        "by": config.by,
        "statistic": config.statistic,
        "tokens": config.tokens,
        "first_token": config.first_token,
        "threshold": config.threshold,
        "min_tokens": config.min_tokens,
        "bridge_layers": list(masks.bridge_layers),
        "bridge_rule": config.bridge_rule,
        "beta": config.beta,
        "gamma": config.gamma,
        "hash": masks.hash,
        "residual": None if config.residual is None else {**config.residual.model_dump(), "hash": masks.residual_hash},
        "layers": [
            {
                "layer": layer,
                "bridge": layer in masks.bridge_layers,
                **{name: int(count[layer, i]) for i, name in enumerate(CATEGORIES)},
                **{f"{name}_share": round(float(share[layer, i]), 4) for i, name in enumerate(CATEGORIES)},
                **_unmeasured(masks, layer),
                "score": round(float(share[layer, PARTIAL] - share[layer, DEAD]), 4),
            }
            for layer in range(len(share))
        ],
        "active_in_bridge": {one: int(masks.active_in(one)[bridge].sum()) for one in masks.languages},
        "specific": config.specific.model_dump(),
        "specific_in_bridge": {one: int(masks.specific_in(one)[bridge].sum()) for one in masks.languages},
        "added": {language: text.model_dump() for language, text in config.added.items()},
        "overlap": [[round(float(value), 4) for value in row] for row in overlap(masks)],
        "instance_shares": config.instance_shares,
        "date": config.date,
        "package_version": config.package_version,
    }


def _unmeasured(masks: MaskSet, layer: int) -> dict[str, int]:
    """Of a mixture of experts: how many neurons of a layer have no category, as too few tokens reached their expert."""
    if masks.measured is None:
        return {}
    return {"unmeasured": int(np.count_nonzero(masks.categories[layer] == UNMEASURED))}
