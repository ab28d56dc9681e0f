"""Streaming statistics of what leaves each decoder layer, over the texts of one language."""

from __future__ import annotations

import numpy as np
import torch

from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.mixtures.expert_products import Routed
from lm_eval_clas.decoder.projections import Projection
from lm_eval_clas.neurons.pass_statistics import PassStatistics, require_finite
from lm_eval_clas.neurons.residual_folder import ResidualSums


class HiddenStatistics(PassStatistics):
    """Accumulates sums of hidden states and of their lengths, and keeps each text's mean.

    Args:
        places: the outputs of all decoder layers, as `layer_outputs` gives them.
        texts: how many there are.
    """

    def __init__(self, places: list[Projection], texts: int) -> None:
        super().__init__(places)
        shape = (len(places), places[0].neurons)
        self._total, self._norms = np.zeros(shape), np.zeros(shape[0])
        self._sentences = np.zeros((texts, *shape))  # float64, as all processes' are summed

    def sums(self, processes: Processes | None = None) -> ResidualSums:
        """The totals so far, of all `processes` together.

        Raises:
            ClasError: a hidden state was infinite.
        """
        processes = processes or Processes()
        total, norms, sentences = (processes.sum(one) for one in (self._total, self._norms, self._sentences))
        count = processes.sum(np.array([self.tokens], dtype=np.float64))
        require_finite(total, norms, sentences)
        return ResidualSums(total, norms, int(count[0]), sentences.astype(np.float32))

    def _read(self, place: int, h: torch.Tensor | Routed) -> None:
        assert self._batch is not None
        assert isinstance(h, torch.Tensor)
        real, layer = self._batch.real.to(h.device), self._places[place].layer
        # Not by weights alone: in float16, sinks and padding may overflow, and infinity times zero is not zero.
        tokens = torch.where(real[..., None] > 0, h.float(), 0.0)  # [texts, tokens, hidden]
        by_text = tokens.sum(1).double().cpu().numpy()
        self._total[layer] += by_text.sum(0)
        self._norms[layer] += tokens.norm(dim=-1).double().sum().item()
        self._sentences[list(self._batch.items), layer] = by_text / real.sum(1, keepdim=True).double().cpu().numpy()
