"""What vLLM can do and steering by row cannot go with, each refused with a sentence before a token is computed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.processes import launched_as
from lm_eval_clas.steering.methods.method_table import METHODS

KNOWN_VERSIONS = "0.32.0"  # of vLLM; docs/vllm.md says what was run with which
INSTALL = "pip install 'lm-eval-clas[vllm]'"


def require_installed() -> None:
    """Refuses to begin what needs vLLM where it is missing.

    Raises:
        ClasError: it is.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ClasError(
            f"vllm-clas needs vLLM, which is not installed: {INSTALL} on a machine with CUDA, or see docs/vllm.md for one "
            "without."
        )


def refuse_launcher() -> None:
    """Refuses several processes of a launcher, each of which would start an engine of its own for the same requests.

    Raises:
        ClasError: a launcher started this process as one of several.
    """
    if launched_as()[1] > 1:
        raise ClasError("vLLM starts processes of its own; start this without a launcher, and give tensor_parallel_size.")


def refuse_config(config: Any) -> None:
    """Refuses what of an engine's configuration steering does not go with.

    Args:
        config: vLLM's `VllmConfig`.

    Raises:
        ClasError: a token would be steered by another's row, or not at all.
    """
    parallel, scheduler = config.parallel_config, config.scheduler_config
    refused = {
        "speculative decoding (speculative_config)": config.speculative_config is not None,
        "LoRA adapters (enable_lora); merge the adapter into the checkpoint": config.lora_config is not None,
        "dual-batch overlap (enable_dbo)": parallel.enable_dbo or getattr(parallel, "use_ubatching", False),
        "experts that run with each process's share of the tokens (enable_expert_parallel with data parallelism)": getattr(
            parallel, "use_sequence_parallel_moe", False
        ),
        "context parallelism (prefill_context_parallel_size)": getattr(parallel, "prefill_context_parallel_size", 1) > 1,
        "caches of keys and values outside of the engine (kv_transfer_config)": config.kv_transfer_config is not None,
        "layers that get some of a prompt's tokens (kv_sharing_fast_prefill)": getattr(
            config.cache_config, "kv_sharing_fast_prefill", False
        ),
        "engines that are added while others run (enable_elastic_ep)": getattr(parallel, "enable_elastic_ep", False),
        "pooling models": getattr(config.model_config, "runner_type", "generate") != "generate",
    }
    for what, found in refused.items():
        if found:
            raise ClasError(f"vllm-clas does not go with {what}; start without it.")
    salted = "lm_eval_clas." in str(scheduler.scheduler_cls)
    if config.cache_config.enable_prefix_caching and not salted:
        raise ClasError(
            "Steered prompts must not share cached prefixes with others, and this engine's scheduler does not keep them apart; "
            f"start it with scheduler_cls={SCHEDULER}, or with enable_prefix_caching=False."
        )


@contextmanager
def refusing_engines() -> Iterator[None]:
    """Inside it, an engine that would be refused in processes of its own is refused in this one, before anything is loaded.

    Whatever starts an engine has vLLM make its configuration in the process that asks for it: there it is looked at.

    Raises:
        ClasError: steering does not go with the configuration; or a process of the engine ended, whose lines say why.
    """
    arguments: Any = importlib.import_module("vllm.engine.arg_utils").EngineArgs
    original = arguments.create_engine_config

    def looked_at(self: Any, *given: Any, **named: Any) -> Any:
        config = original(self, *given, **named)
        refuse_config(config)
        return config

    arguments.create_engine_config = looked_at
    try:
        yield
    except Exception as error:
        if "root cause" not in str(error):  # where it knows no cause itself, vLLM says where to look for it
            raise
        raise ClasError(
            "vLLM's engine, which has processes of its own, has ended; the first error in the lines above says why."
        ) from error
    finally:
        arguments.create_engine_config = original


def refuse_method(method: str, instead: str = "use --model hf-clas") -> None:
    """Refuses a method that no row can hold.

    Args:
        method: its name.
        instead: what to do, as the end of a sentence.

    Raises:
        ClasError: it is one.
    """
    if method in METHODS and METHODS[method].is_map:
        raise ClasError(
            f"method={method} adds a linear map of the activation, and in vLLM a request has factors and vectors, which no map "
            f"is; {instead}."
        )


def refuse_signature(name: str, found: Sequence[str], known: Sequence[str]) -> None:
    """Refuses a runner whose inputs are prepared in another way than those that were read and run.

    Raises:
        ClasError: the parameters differ.
    """
    if list(found) != list(known):
        raise ClasError(
            f"This version of vLLM prepares a step with {name}({', '.join(found)}), which vllm-clas does not know; "
            f"it is known to work with vLLM {KNOWN_VERSIONS}: pip install vllm=={KNOWN_VERSIONS}."
        )


WORKER = "lm_eval_clas.engine.worker.SteeringWorker"
SCHEDULER = "lm_eval_clas.engine.scheduler.salting_scheduler"
