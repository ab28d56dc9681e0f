"""In the place of `vllm.LLM`, where processes are tested and not what they compute."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class StandIn:
    """Answers with what it was asked and by which process.

    Args:
        fails: with what it does not start; `"exit"` ends its process.
    """

    llm_engine = SimpleNamespace(model_config="a configuration")

    def __init__(self, fails: str | None = None, seed: int = 0, **_: Any) -> None:
        self._seed = seed
        from lm_eval_clas.base.errors import ClasError

        if fails == "exit":
            os._exit(3)
        if fails is not None:
            raise ClasError(fails) if fails.startswith("refused") else ValueError(fails)

    def generate(self, prompts: Sequence[Any], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        if "end" in prompts:
            os._exit(4)
        if "sleep" in prompts:
            time.sleep(600)
        own = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        return [(prompt, params, use_tqdm, os.getpid()) for prompt, params in zip(prompts, own, strict=True)]

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        if method == "fail":
            raise KeyError(method)
        return [(method, *args, rank, os.getpid()) for rank in range(2)]

    def devices(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    def seed(self) -> int:
        return self._seed


@contextmanager
def refusing() -> Iterator[None]:
    """A context in which engines are made."""
    from lm_eval_clas.base.errors import ClasError

    yield
    raise ClasError("refused: in its context.")
