"""`ReplicatedEngine`: several engines of vLLM in processes of their own, which look like one `vllm.LLM` to the harness.

The harness's own `data_parallel_size` starts a new engine in each process for each call, which would have no factors. These
stay, so that all can be asked for what they counted.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

import psutil

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.plain_numbers import plain_number
from lm_eval_clas.engine.replicas.replica_process import Named, run_replica

_PATIENCE = 5.0  # seconds for processes to end by themselves, and then when they are asked to


@dataclass
class _Replica:
    """A process with an engine, our end of the pipe to it, and the processes that its engine has."""

    process: BaseProcess
    connection: Connection
    own: list[psutil.Process] = field(default_factory=list)


class ReplicatedEngine:
    """Replicas, each of which gets every n-th prompt. Where one fails, all are ended.

    Args:
        count: of replicas, at least 2.
        looking: a context, by module and name, in which each engine is made.
        engine: their class, by module and name.
        **arguments: of the class. Each replica has a seed of its own, so that they do not sample alike.

    Attributes:
        llm_engine: with the model's configuration where `vllm.LLM` has it.

    Raises:
        ClasError: there are not enough GPUs, or a replica does not start.
    """

    def __init__(self, count: int, looking: Named | None = None, engine: Named = ("vllm", "LLM"), **arguments: Any) -> None:
        shares = _device_shares(count, arguments)
        context = multiprocessing.get_context("spawn")
        self._replicas: list[_Replica] = []
        self._close = weakref.finalize(self, _end, self._replicas, _PATIENCE)
        # Before multiprocessing's own at the end of a program, which waits for processes that wait for us.
        atexit.register(self._close)
        with self._closing():
            for number, share in enumerate(shares):
                ours, theirs = context.Pipe()
                own = {**arguments, "seed": int(arguments.get("seed") or 0) + number}
                process = context.Process(target=run_replica, args=(theirs, engine, looking, share, own))
                with _deaf_to_ctrl_c():  # until it ignores that by itself
                    process.start()
                theirs.close()
                self._replicas.append(_Replica(process, ours))
            configurations = [self._answer(number) for number in range(count)]
            for replica in self._replicas:
                replica.own = _children(replica.process)
        self.llm_engine = SimpleNamespace(model_config=configurations[0])

    @property
    def count(self) -> int:
        """How many there are; the n-th of them gets the n-th prompt of a list, and every `count`-th after it."""
        return len(self._replicas)

    def generate(self, prompts: Sequence[Any], sampling_params: Any = None, use_tqdm: Any = True, **named: Any) -> list[Any]:
        """As `vllm.LLM.generate`; the bar is that of the first replica.

        Raises:
            ClasError: a replica ended.
        """
        by_prompt = isinstance(sampling_params, (list, tuple))
        asked = range(min(self.count, len(prompts)))
        with self._closing():
            for number in asked:
                own = sampling_params[number :: self.count] if by_prompt else sampling_params
                bar = use_tqdm if number == 0 else False
                self._ask(number, "generate", prompts[number :: self.count], sampling_params=own, use_tqdm=bar, **named)
            shares = [self._answer(number) for number in asked]
        return [shares[place % self.count][place // self.count] for place in range(len(prompts))]

    def of_each(self, method: str, *given: Any, **named: Any) -> list[Any]:
        """What each replica answers to a method.

        Raises:
            ClasError: a replica ended, or answers with an error.
        """
        with self._closing():
            for number in range(self.count):
                self._ask(number, method, *given, **named)
            return [self._answer(number) for number in range(self.count)]

    def collective_rpc(self, method: str, **named: Any) -> list[Any]:
        """As `vllm.LLM.collective_rpc`: of all processes of all replicas."""
        return [answer for answers in self.of_each("collective_rpc", method, **named) for answer in answers]

    def reset_prefix_cache(self) -> bool:
        """As `vllm.LLM.reset_prefix_cache`."""
        return all(self.of_each("reset_prefix_cache"))

    def _ask(self, number: int, method: str, *given: Any, **named: Any) -> None:
        if not self._close.alive:
            raise ClasError("The engines of data_parallel_size have ended; load the model again.")
        with suppress(BrokenPipeError):  # that it ended is said where its answer is waited for
            self._replicas[number].connection.send((method, given, named))

    def _answer(self, number: int) -> Any:
        replica = self._replicas[number]
        name = f"Replica {number} of data_parallel_size={self.count}"
        # What its engine started may hold the pipe open when it has ended.
        wait([replica.connection, replica.process.sentinel])
        try:
            if not replica.connection.poll():
                raise EOFError
            error, result = replica.connection.recv()
        except (EOFError, ConnectionResetError):
            replica.process.join(_PATIENCE)
            raise ClasError(
                f"{name} has ended (exit code {replica.process.exitcode}); the lines above say why. (A script that makes "
                "replicas needs a file of its own, and `if __name__ == '__main__':` before what it does.)"
            ) from None
        if error is not None:
            kind, told = error
            raise ClasError(told if kind == ClasError.__name__ else f"{name}: {kind}: {told}")
        return result

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Ends all replicas where something fails or is interrupted: an answer to what was asked before might still come."""
        try:
            yield
        except BaseException:
            if self._close.detach() is not None:
                atexit.unregister(self._close)
                _end(self._replicas, patience=0)
            raise


def _end(replicas: Sequence[_Replica], patience: float) -> None:
    """Ends replicas and what they started; by themselves, if they do within that many seconds."""
    started = [one for replica in replicas for one in (*_children(replica.process), *replica.own)]
    try:
        for replica in replicas:
            replica.connection.close()
        end = time.monotonic() + patience
        for replica in replicas:
            replica.process.join(max(0.0, end - time.monotonic()))
        for replica in replicas:
            replica.process.terminate()
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        _, started = psutil.wait_procs(started, timeout=_PATIENCE)
    finally:  # of a second Ctrl-C, too
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        for replica in replicas:
            replica.process.join(_PATIENCE)
            replica.process.kill()


def _children(process: BaseProcess) -> list[psutil.Process]:
    """All that a process started; nothing where it has ended."""
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _device_shares(count: int, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    """The GPUs of each replica, as its environment names them; nothing each where there are no GPUs.

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
        return [{}] * count
    each = int(arguments.get("tensor_parallel_size") or 1) * int(arguments.get("pipeline_parallel_size") or 1)
    if count * each > there:
        raise ClasError(
            f"data_parallel_size={count} needs {count * each} GPUs, {each} for each replica, and {there} can be seen."
        )
    variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
    named = [name for name in os.environ.get(variable, "").split(",") if name]
    names = named or [str(number) for number in range(there)]
    return [{variable: ",".join(names[number * each : (number + 1) * each])} for number in range(count)]


def require_replicas(asked: Any) -> int:
    """How many replicas there are to be, of `data_parallel_size`.

    Raises:
        ClasError: that is no whole number above 0.
    """
    if asked is None:
        return 1
    try:
        number = plain_number(asked)
    except ValueError:
        number = 0.0
    if number < 1 or not number.is_integer():
        raise ClasError(f"data_parallel_size={asked}: give the number of replicas, 1 or more.")
    return int(number)


@contextmanager
def replicated(count: int, looking: Named | None) -> Iterator[None]:
    """Inside it, the harness's class for vLLM makes so many replicas in the place of one engine.

    Args:
        count: of replicas; 1 changes nothing.
        looking: as `ReplicatedEngine` takes it.
    """
    if count == 1:
        yield
        return
    module: Any = importlib.import_module("lm_eval.models.vllm_causallms")
    original, module.LLM = module.LLM, partial(ReplicatedEngine, count, looking)
    try:
        yield
    finally:
        module.LLM = original
