"""Loading a model the way the harness does, or its modules alone."""

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


def model_without_weights(pretrained: str, revision: str | None = None, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """A configuration, and the model as it tells it: every module in place, on torch's meta device, without memory.

    Raises:
        ClasError: the configuration cannot be read, or is of no decoder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(pretrained, revision=revision, **options)
        with torch.device("meta"):
            return config, AutoModelForCausalLM.from_config(config, **options)
    except Exception as error:  # transformers and the Hub raise every kind for a wrong name or configuration
        reason = first_line(error)
        raise ClasError(f"Cannot read the configuration of the model '{pretrained}': {reason}") from error
