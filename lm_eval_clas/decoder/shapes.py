"""What a model's passes need, computed from its shape alone: for planning on a machine that does not hold it."""

from __future__ import annotations

from pydantic import Field

from lm_eval_clas.disk.checked_json import Strict


class ModelShape(Strict):
    """Numbers from a model's card and configuration.

    Attributes:
        parameters: all of them.
        bytes_per_weight: 2 for bfloat16.
        tied: whether the output layer's weights are those of the input embeddings.
    """

    parameters: float = Field(gt=0)
    layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    neurons: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    bytes_per_weight: int = Field(default=2, gt=0)
    tied: bool = False

    @property
    def weights(self) -> float:
        """Bytes of all weights."""
        return self.parameters * self.bytes_per_weight

    @property
    def in_layers(self) -> float:
        """Parameters that every token meets: all but those of the embeddings and of the output layer."""
        return max(0.0, self.parameters - self.in_output * (1 if self.tied else 2))

    @property
    def in_output(self) -> float:
        """Parameters of the output layer, which only tokens meet whose logits are read."""
        return self.vocabulary * self.hidden_size

    def memory(self, batch: int, tokens: int) -> float:
        """Bytes while `batch` sequences of `tokens` tokens are run: weights, key-value cache, and activations.

        Activations are those of one layer at a time (there is no gradient), plus one chunk of float32 logits.
        """
        cache = self.cache_per_token * batch * tokens
        activations = (4 * self.hidden_size + 3 * self.neurons) * self.bytes_per_weight * batch * tokens
        logits = 4 * 2**24
        return self.weights + cache + activations + 2 * logits

    @property
    def cache_per_token(self) -> float:
        """Bytes of keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.bytes_per_weight
