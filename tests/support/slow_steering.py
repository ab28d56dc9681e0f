"""Steering as the paper writes it, one product after the other."""

from __future__ import annotations

import torch

from lm_eval_clas import MaskSet


def reference(
    masks: MaskSet, language: str, alpha: float, beta: float, gamma: float, layer: int, h: torch.Tensor
) -> torch.Tensor:
    """h1, h2 and the blend of the paper, literally, with masks from Python loops."""
    partial, specific = torch.zeros(h.shape[-1]), torch.zeros(h.shape[-1])
    for neuron in range(h.shape[-1]):
        languages = sum(bool(masks.active[i, layer, neuron]) for i in range(len(masks.languages)))
        partial[neuron] = 2 <= languages < len(masks.languages)
        specific[neuron] = languages == 1
    if language == masks.anchor or layer not in masks.bridge_layers:
        return h
    h1 = h * (1 + beta * partial)
    h2 = h1 * (1 - gamma * specific)
    return (1 - alpha) * h + alpha * h2
