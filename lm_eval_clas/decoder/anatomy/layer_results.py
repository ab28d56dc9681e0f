"""What a decoder layer returns: the hidden states that the next one gets, alone or first in a tuple."""

from __future__ import annotations

from typing import Any

import torch


def hidden_in(output: Any) -> torch.Tensor:
    """The hidden states, [batch, tokens, hidden]."""
    hidden: torch.Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return hidden


def with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """The same result with other hidden states; what else is in it stays."""
    return type(output)((hidden, *output[1:])) if type(output) in (tuple, list) else hidden
