"""What all statistics of a profile have in common: places are hooked, batches run, and texts and tokens are counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.below_head import decoder_of
from lm_eval_clas.decoder.mixtures.expert_products import Routed
from lm_eval_clas.decoder.projections import Projection, reading
from lm_eval_clas.decoder.text_batches import Batch


class PassStatistics(ABC):
    """Accumulates what places of a model show over the batches that are run.

    Args:
        places: what is read, as `find_projections` or `layer_outputs` gives it.

    Attributes:
        texts: how many were run.
        tokens: how many of their tokens count.
    """

    def __init__(self, places: list[Projection]) -> None:
        self._places = places
        self.texts = 0
        self.tokens = 0
        self._batch: Batch | None = None
        self._passed: Callable[[], None] = lambda: None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hooks the places for the length of the block."""
        with reading(self._places, self._read) as self._passed:
            yield

    def add(self, model: nn.Module, batch: Batch) -> None:
        """Runs one batch through the decoder, without its LM head.

        Raises:
            ClasError: a place did not run once.
        """
        self._batch = batch
        with torch.inference_mode():
            decoder_of(model)(**batch.inputs, use_cache=False)
        self._passed()
        self.tokens += int(batch.real.sum().item())
        self.texts += len(batch.real)

    @abstractmethod
    def _read(self, place: int, h: torch.Tensor | Routed) -> None:
        """Adds what one place shows of `_batch`."""


def require_finite(*sums: NDArray[np.float64]) -> None:
    """Refuses sums of activations that were too large for the model's dtype.

    Raises:
        ClasError: there is one.
    """
    if not all(np.isfinite(one).all() for one in sums):
        raise ClasError("Activations are infinite in this dtype; load the model with dtype=bfloat16 or dtype=float32.")
