"""Loading a model the way the harness does, or its modules alone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lm_eval_clas.base.errors import ClasError, first_line


def load_model(model: str, model_args: str, device: str | None, fast: bool = False) -> Any:
    """The harness's own Hugging Face model, which knows every way to load one; or ours, which scores fast.

    Raises:
        ClasError: it cannot be loaded.
    """
    kind = _kind(fast)
    try:
        return kind(model, **_arguments(kind, model, model_args, device))
    except ClasError:
        raise
    except Exception as error:  # transformers, the harness and the Hub raise every kind for a wrong name or argument
        reason = first_line(error)
        raise ClasError(f"Cannot load the model '{model}': {reason}") from error


def require_arguments(model: str, model_args: str, fast: bool = False) -> None:
    """Refuses, before anything is loaded or written, arguments that `load_model` would refuse.

    Raises:
        ClasError: one is a slip.
    """
    try:
        _arguments(_kind(fast), model, model_args, None)
    except ClasError:
        raise
    except Exception:  # what the harness cannot take apart is told where the model is loaded
        return


def _kind(fast: bool) -> Any:
    from lm_eval.models.huggingface import HFLM

    from lm_eval_clas.harness.fast_lm import FastLM

    return FastLM if fast else HFLM


def _arguments(kind: Any, model: str, model_args: str, device: str | None) -> dict[str, Any]:
    """What a model class of the harness is given, without slips."""
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_clas.harness.fast_lm import default_device, refuse_slips_in_loading

    arguments = {"device": device or default_device(), **simple_parse_args_string(model_args)}
    refuse_slips_in_loading("hf", kind, model, arguments)
    return arguments


def modules_to_load(model: str, model_args: str) -> Any:
    """The model that `load_model` would load, as `model_without_weights`; None if only loading can tell what it is.

    Raises:
        ClasError: an argument is a slip.
    """
    from lm_eval.models.huggingface import HFLM

    try:
        arguments = _arguments(HFLM, model, model_args, None)
    except ClasError:
        raise
    except Exception:  # what the harness cannot take apart is told where the model is loaded
        return None
    with suppress(ClasError):  # as is a configuration that lies elsewhere, in a GGUF file or a folder below
        return model_without_weights(model, arguments.get("revision"), bool(arguments.get("trust_remote_code", False)))[1]
    return None


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
