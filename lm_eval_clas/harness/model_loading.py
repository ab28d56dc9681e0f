"""Loading a model the way the harness does."""

from __future__ import annotations

from typing import Any

from lm_eval_clas.base.errors import ClasError, first_line


def load_model(model: str, model_args: str, device: str | None, fast: bool = False) -> Any:
    """The harness's own Hugging Face model, which knows every way to load one; or ours, which scores fast.

    Raises:
        ClasError: it cannot be loaded.
    """
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_clas.harness.fast_lm import FastLM, default_device, refuse_slips_in_loading

    kind = FastLM if fast else HFLM
    try:
        arguments = {"device": device or default_device(), **simple_parse_args_string(model_args)}
        refuse_slips_in_loading("hf", kind, model, arguments)
        return kind(model, **arguments)
    except ClasError:
        raise
    except Exception as error:  # transformers, the harness and the Hub raise every kind for a wrong name or argument
        reason = first_line(error)
        raise ClasError(f"Cannot load the model '{model}': {reason}") from error
