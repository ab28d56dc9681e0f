"""`salting_scheduler`: vLLM's own scheduler, in which requests share cached prefixes only under the same factors.

Keys and values of a steered prompt are others than those of the same prompt unsteered. vLLM finds cached blocks by hashes that
a salt enters. It is set here, where every request enters the engine's core, whoever sent it and whatever they forgot.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT, digest_of


def salt(request: Any) -> None:
    """Makes the hashes of a request's blocks depend on the factors that it names, beside the salt that its sender gave it."""
    name = ((request.sampling_params.extra_args if request.sampling_params else None) or {}).get(EXTRA_ARGUMENT)
    parts = [f"clas {digest_of(str(name))}"] if name is not None else []
    parts += [f"own {request.cache_salt}"] if request.cache_salt else []
    if parts:
        request.cache_salt = " ".join(parts)
        request.block_hashes.clear()
        request.update_block_hashes()


class SaltingScheduler(Scheduler):
    """For engines that run one step after the other."""

    def add_request(self, request: Any) -> None:
        salt(request)
        super().add_request(request)


class SaltingAsyncScheduler(AsyncScheduler):
    """For engines that prepare a step while another runs."""

    def add_request(self, request: Any) -> None:
        salt(request)
        super().add_request(request)


def salting_scheduler(vllm_config: Any, **kwargs: Any) -> Any:
    """The scheduler that an engine's configuration asks for, salting. Given by name as `scheduler_cls`."""
    chosen = SaltingAsyncScheduler if vllm_config.scheduler_config.async_scheduling else SaltingScheduler
    return chosen(vllm_config=vllm_config, **kwargs)
