"""The decoder below a model's head: the one place that knows how to find it."""

from __future__ import annotations

from typing import Any


def bare_model(model: Any) -> Any:
    """The model inside a PEFT wrapper, whose adapters stay in effect; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder_of(model: Any) -> Any:
    """The innermost module that every forward pass of the model runs through, without its LM head; the model if there is none.

    OPT has two, one in the other, and before transformers 5 its passes skip the outer one: the inner one is given.
    """
    model = bare_model(model)
    named = model.get_decoder() if hasattr(model, "get_decoder") else None
    # Before transformers 5, some families answer with None or the whole model, and to Gemma 3 the whole model is its base.
    candidates = (named, getattr(model, "base_model", None), getattr(model, "model", None))
    return next((one for one in candidates if one is not None and one is not model), model)
