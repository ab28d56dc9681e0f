"""What makes a mask folder fit a model: type, layers, neurons, hidden size, and a hash of the configuration."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ConfigDict, Field, model_validator
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.projections import Projection, text_config
from lm_eval_clas.disk.checked_json import Strict

# Fields that change the function a checkpoint computes and that every version of transformers stores alike.
_HASHED = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)


class ModelFingerprint(Strict):
    """The shape of a model at one site. `neurons` is the width of one layer's activation there: that of the MLP's intermediate
    activation, or of attention's heads side by side; `heads`, for attention only, is how many share it."""

    model_config = ConfigDict(frozen=True)

    model_type: str
    layers: int = Field(gt=0, le=10_000)
    neurons: int = Field(gt=0, le=10_000_000)
    hidden_size: int = Field(gt=0, le=10_000_000)
    heads: int | None = Field(default=None, gt=0)
    config_hash: str

    @model_validator(mode="after")
    def _consistent(self) -> ModelFingerprint:
        if self.heads is not None and self.neurons % self.heads:
            raise ValueError(f"{self.heads} heads do not share {self.neurons} channels evenly")
        return self

    @classmethod
    def of(cls, model: nn.Module, projections: list[Projection]) -> ModelFingerprint:
        """The fingerprint of a loaded model whose projections at a site are known."""
        config = text_config(model)
        fields = {name: getattr(config, name, None) for name in _HASHED}
        return cls(
            model_type=config.model_type,
            layers=len(projections),
            neurons=projections[0].neurons,
            hidden_size=config.hidden_size,
            heads=projections[0].heads,
            config_hash=hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16],
        )

    def require(self, model: ModelFingerprint, what: str) -> None:
        """Refuses a model of another shape.

        A different hash with the same shape is let through: a fine-tuned model with a few added tokens is still the
        model whose neurons were profiled.

        Raises:
            ClasError: type, layers, neurons, hidden size or heads differ.
        """
        for name, word in [
            ("model_type", "type"),
            ("layers", "layers"),
            ("neurons", "neurons per layer"),
            ("hidden_size", "hidden size"),
            ("heads", "attention heads"),
        ]:
            if getattr(self, name) != getattr(model, name):
                raise ClasError(
                    f"{what} was made for another model: {word} {getattr(self, name)} there, {getattr(model, name)} in the "
                    "model that was loaded; profile this model, or load the one it was made for."
                )


def model_name(pretrained: str) -> str:
    """A name for a model that means something elsewhere: its Hub id, or the last part of a local path."""
    return Path(pretrained).resolve().name if Path(pretrained).exists() else pretrained
