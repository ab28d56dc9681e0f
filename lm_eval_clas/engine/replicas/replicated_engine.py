"""`ReplicatedEngine`: several engines of vLLM in processes of their own, which look like one `vllm.LLM` to the harness.

The harness's own `data_parallel_size` starts a new engine in each process for each call, which would have no factors. These
stay, so that all can be asked for what they counted.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

import psutil

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.replicas.replica_process import run_replica

_ENGINE = ("vllm", "LLM")
_PATIENCE = 5.0  # seconds for replicas to end by themselves, which they do not while they answer


class ReplicatedEngine:
    """Replicas, each of which gets every n-th prompt.

    Args:
        count: of replicas, at least 2.
        engine: module and name of their class.
        **arguments: of the class.

    Attributes:
        llm_engine: with the model's configuration where `vllm.LLM` has it.

    Raises:
        ClasError: there are not enough GPUs, or a replica does not start.
    """

    def __init__(self, count: int, engine: tuple[str, str] = _ENGINE, **arguments: Any) -> None:
        shares = _device_shares(count, arguments)
        if engine == _ENGINE:
            # Made here as well, so that whoever looks at configurations can refuse one before anything is loaded.
            config = importlib.import_module("vllm.engine.arg_utils").EngineArgs(**arguments).create_engine_config()
            self.llm_engine = SimpleNamespace(model_config=config.model_config)
        context = multiprocessing.get_context("spawn")
        self._replicas: list[tuple[BaseProcess, Connection]] = []
        self._close = weakref.finalize(self, _end, self._replicas)
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=run_replica, args=(theirs, engine, share, arguments))
            process.start()
            theirs.close()
            self._replicas.append((process, ours))
        with self._closing():
            for number in range(count):
                self._answer(number)

    def generate(self, prompts: Sequence[Any], sampling_params: Any = None, use_tqdm: Any = True, **named: Any) -> list[Any]:
        """As `vllm.LLM.generate`; the bar is that of the first replica.

        Raises:
            ClasError: a replica ended.
        """
        count = len(self._replicas)
        by_prompt = isinstance(sampling_params, (list, tuple))
        asked = range(min(count, len(prompts)))
        with self._closing():
            for number in asked:
                own = sampling_params[number::count] if by_prompt else sampling_params
                bar = use_tqdm if number == 0 else False
                self._ask(number, "generate", prompts[number::count], sampling_params=own, use_tqdm=bar, **named)
            shares = [self._answer(number) for number in asked]
        return [shares[place % count][place // count] for place in range(len(prompts))]

    def of_each(self, method: str, *given: Any, **named: Any) -> list[Any]:
        """What each replica answers to a method.

        Raises:
            ClasError: a replica ended, or answers with an error.
        """
        with self._closing():
            for number in range(len(self._replicas)):
                self._ask(number, method, *given, **named)
            return [self._answer(number) for number in range(len(self._replicas))]

    def collective_rpc(self, method: str, **named: Any) -> list[Any]:
        """As `vllm.LLM.collective_rpc`: of all processes of all replicas."""
        return [answer for answers in self.of_each("collective_rpc", method, **named) for answer in answers]

    def reset_prefix_cache(self) -> bool:
        """As `vllm.LLM.reset_prefix_cache`."""
        return all(self.of_each("reset_prefix_cache"))

    def _ask(self, number: int, method: str, *given: Any, **named: Any) -> None:
        with suppress(BrokenPipeError):  # that it ended is said where its answer is waited for
            self._replicas[number][1].send((method, given, named))

    def _answer(self, number: int) -> Any:
        process, connection = self._replicas[number]
        try:
            error, result = connection.recv()
        except (EOFError, ConnectionResetError):
            process.join(_PATIENCE)
            raise ClasError(
                f"Replica {number} of data_parallel_size={len(self._replicas)} has ended (exit code {process.exitcode}); the "
                "lines above say why."
            ) from None
        if error is not None:
            kind, told = error
            raise ClasError(
                told
                if kind == ClasError.__name__
                else f"Replica {number} of data_parallel_size={len(self._replicas)}: {kind}: {told}"
            )
        return result

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Ends all replicas where something fails or is interrupted: an answer to what was asked before might still come."""
        try:
            yield
        except BaseException:
            self._close()
            raise


def _end(replicas: Sequence[tuple[BaseProcess, Connection]]) -> None:
    for _, connection in replicas:
        connection.close()
    end = time.monotonic() + _PATIENCE
    for process, _ in replicas:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive() and process.pid is not None:
            with suppress(psutil.NoSuchProcess):
                for one in psutil.Process(process.pid).children(recursive=True):  # vLLM's engine may have its own
                    one.terminate()
            process.terminate()
            process.join(_PATIENCE)


def _device_shares(count: int, arguments: dict[str, Any]) -> list[list[str] | None]:
    """The GPUs of each replica, by the names that CUDA_VISIBLE_DEVICES has for them; None each where there are no GPUs.

    Raises:
        ClasError: there are too few, or Ray is to share them.
    """
    import torch

    if arguments.get("distributed_executor_backend") == "ray":
        raise ClasError(
            "data_parallel_size does not go with distributed_executor_backend=ray, which gives GPUs to processes by itself; "
            "leave one of them out."
        )
    there = torch.cuda.device_count()
    if there == 0:
        return [None] * count
    each = int(arguments.get("tensor_parallel_size") or 1) * int(arguments.get("pipeline_parallel_size") or 1)
    if count * each > there:
        raise ClasError(
            f"data_parallel_size={count} needs {count * each} GPUs, {each} for each replica, and {there} can be seen."
        )
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = named or [str(number) for number in range(there)]
    return [names[number * each : (number + 1) * each] for number in range(count)]


def require_replicas(asked: Any) -> int:
    """How many replicas there are to be, of `data_parallel_size`.

    Raises:
        ClasError: that is no whole number above 0.
    """
    if asked is None:
        return 1
    try:
        count = int(asked)
    except ValueError:
        count = 0
    if count < 1:
        raise ClasError(f"data_parallel_size={asked}: give the number of replicas, 1 or more.")
    return count


@contextmanager
def replicated(count: int) -> Iterator[None]:
    """Inside it, the harness's class for vLLM makes so many replicas in the place of one engine."""
    if count == 1:
        yield
        return
    module: Any = importlib.import_module("lm_eval.models.vllm_causallms")
    original, module.LLM = module.LLM, partial(ReplicatedEngine, count)
    try:
        yield
    finally:
        module.LLM = original
