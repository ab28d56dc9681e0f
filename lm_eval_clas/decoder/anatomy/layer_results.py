"""What a decoder layer returns: the hidden states that the next one gets, alone or first in a tuple."""

from __future__ import annotations

from typing import Any

import torch

from lm_eval_clas.base.errors import ClasError


def hidden_in(output: Any) -> torch.Tensor:
    """The hidden states, [batch, tokens, hidden]."""
    hidden: torch.Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return hidden


def require_hidden(name: str, hidden: torch.Tensor, width: int) -> torch.Tensor:
    """Refuses what is no hidden state of a width for each token of each sequence.

    Raises:
        ClasError: a layer gives something else, as those do that keep several streams.
    """
    if hidden.ndim != 3 or hidden.shape[-1] != width:
        raise ClasError(
            f"What leaves the layer '{name}' is of the shape {list(hidden.shape)}, and no hidden state of size {width} for "
            "each token; methods that act there do not go with this model."
        )
    return hidden


def with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """The same result with other hidden states; what else is in it stays."""
    return type(output)((hidden, *output[1:])) if type(output) in (tuple, list) else hidden
