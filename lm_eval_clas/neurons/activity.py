"""Which number stands for a neuron's activity in a language: the statistics, the tokens, and the units they are taken over."""

from __future__ import annotations

from typing import Literal, get_args

Statistic = Literal["signed-mean", "mean-abs", "share-positive"]
Tokens = Literal["all", "last"]
FirstToken = Literal["keep", "skip"]  # whether the first position of a sequence counts, where no special token stands there
# What is profiled: inputs of projections, whose numbers are neurons; or what leaves the decoder layers, the residual stream.
ProfiledSite = Literal["mlp", "attn", "residual"]
By = Literal["channel", "head"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
