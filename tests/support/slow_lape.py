"""LAPE as a slow loop over neurons."""

from __future__ import annotations

import math

import numpy as np


def slow(probabilities: np.ndarray, top: float, percentile: float) -> list[list[list[int]]]:
    """The rule of the paper, a neuron at a time: by language and layer, the numbers of neurons."""
    languages, layers, neurons = probabilities.shape
    every = sorted(float(one) for one in probabilities.flatten())
    bar = every[round(len(every) * percentile) - 1]
    entropies = []
    for layer in range(layers):
        for neuron in range(neurons):
            each = [float(probabilities[language, layer, neuron]) for language in range(languages)]
            if max(each) > bar:
                shares = [one / sum(each) for one in each]
                entropies.append((-sum(one * math.log(one) for one in shares if one > 0), layer, neuron))
    kept = sorted(entropies)[: round(layers * neurons * top)]
    found: list[list[list[int]]] = [[[] for _ in range(layers)] for _ in range(languages)]
    for _, layer, neuron in kept:
        for language in range(languages):
            if probabilities[language, layer, neuron] > bar:
                found[language][layer].append(neuron)
    return found
