"""Reading a model's configuration, of which any field may be missing, or raise an error of transformers' own."""

from __future__ import annotations

from typing import Any

from torch import nn

from lm_eval_clas.base.errors import ClasError


def field(config: Any, name: str, default: Any = None) -> Any:
    """A field of a configuration; the default where it has none, or cannot say.

    Gemma 4 raises an error of its own for `head_dim`, since its layers have two: `getattr` with a default does not help there.
    """
    try:
        return getattr(config, name, default)
    except Exception:  # transformers raises every kind there
        return default


def whole_number(config: Any, *names: str) -> int | None:
    """The first of these fields that holds a whole number above 0; None if none does."""
    found = (field(config, name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool) and value > 0), None)


def text_config(model: nn.Module) -> Any:
    """The configuration of the text decoder, also where a multimodal model nests it."""
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def hidden_size(model: nn.Module) -> int:
    """The width of what goes from layer to layer of the text decoder, whatever its configuration calls it.

    Raises:
        ClasError: it has no such field.
    """
    names = ("hidden_size", "d_model", "n_embd")
    found = whole_number(text_config(model), *names)
    if found is None:
        raise ClasError(
            f"The configuration of {type(model).__name__} has no hidden size ({', '.join(names[:-1])} or {names[-1]}), without "
            "which its neurons cannot be found; add hidden_size to it."
        )
    return found


def vocabulary(model: nn.Module) -> int:
    """How many tokens the text decoder knows.

    Raises:
        ClasError: its configuration does not say.
    """
    found = whole_number(text_config(model), "vocab_size")
    if found is None:
        raise ClasError(f"The configuration of {type(model).__name__} has no vocab_size, by which tokens are chosen; add it.")
    return found
