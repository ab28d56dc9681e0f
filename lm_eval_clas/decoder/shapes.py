"""What memory and time a model needs, computed from its shape alone: for planning on a machine that does not hold it."""

from __future__ import annotations

from pydantic import Field

from lm_eval_clas.disk.checked_json import Strict

# NVIDIA A100 80 GB, from its data sheet: dense bfloat16 operations and bytes of memory a second.
_PEAK_OPERATIONS = 312e12
_PEAK_BYTES = 2.0e12
# The share of both that an ordinary transformers run gets; a guess, which the plan says.
_UTILISATION = 0.35


class ModelShape(Strict):
    """Numbers from a model's card and configuration.

    Attributes:
        parameters: all of them.
        bytes_per_weight: 2 for bfloat16.
    """

    parameters: float = Field(gt=0)
    layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    neurons: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    bytes_per_weight: int = Field(default=2, gt=0)

    def memory(self, batch: int, tokens: int) -> float:
        """Bytes while `batch` sequences of `tokens` tokens are run: weights, key-value cache, and activations.

        Activations are those of one layer at a time (there is no gradient), plus one chunk of float32 logits.
        """
        weights = self.parameters * self.bytes_per_weight
        cache = 2 * self.layers * self.kv_heads * self.head_size * self.bytes_per_weight * batch * tokens
        activations = (4 * self.hidden_size + 3 * self.neurons) * self.bytes_per_weight * batch * tokens
        logits = 4 * 2**24
        return weights + cache + activations + 2 * logits

    def seconds(self, tokens: float, decode_steps: float = 0) -> float:
        """Seconds on one A100: 2 operations per parameter and token, and all weights read once for each decoding step."""
        reading = self.parameters * self.bytes_per_weight / (_PEAK_BYTES * _UTILISATION)
        return 2 * self.parameters * tokens / (_PEAK_OPERATIONS * _UTILISATION) + decode_steps * reading
