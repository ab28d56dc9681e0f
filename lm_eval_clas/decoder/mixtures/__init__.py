"""Mixtures of experts from inside: the products of experts, and the activations between them, read and changed.

Imports `base` and `decoder.anatomy`. Begin with `expert_taps.py`.
"""
