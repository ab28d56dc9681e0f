"""`RowedVLLM`: the harness's `vllm`, in which each request may name the row that steers it, all of them in one batch."""

from __future__ import annotations

import copy
import gc
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import logger
from lm_eval_clas.base.plain_numbers import require_batch_size
from lm_eval_clas.decoder.projections import Site
from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.refusals import refuse_launcher, refusing_engines, require_installed
from lm_eval_clas.engine.replicas.replicated_engine import replicated, require_replicas
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT, RowTables, steered_tokens, summed_tokens
from lm_eval_clas.harness.common.answerable import require_choices, require_prompts, require_room, require_scorable
from lm_eval_clas.harness.common.argument_names import strange_arguments_told
from lm_eval_clas.harness.common.loaded_model import loaded_as


def vllm_class() -> Any:
    """The harness's model class for vLLM.

    Raises:
        ClasError: vLLM is not installed.
    """
    require_installed()
    from lm_eval.models.vllm_causallms import VLLM

    return VLLM


def with_row(request: Instance, name: str | None) -> Instance:
    """A copy of a request that is steered by the row of that name, or by none."""
    named = copy.copy(request)
    named.clas_row = name
    if name is not None and request.request_type == "generate_until":
        context, options = request.args
        extra = {**options.get("extra_args", {}), EXTRA_ARGUMENT: name}
        named.arguments = (context, {**options, "extra_args": extra})
    return named


_VLLM = vllm_class()
SamplingParams = importlib.import_module("vllm").SamplingParams


def engine_takers() -> list[Callable[..., Any]]:
    """What takes the arguments that the harness's class hands on to vLLM."""
    vllm = importlib.import_module("vllm")
    return [vllm.LLM, vllm.EngineArgs]


class RowedVLLM(_VLLM):  # type: ignore[misc,valid-type]
    """The harness's `vllm` with rows of factors and vectors.

    Requests come from `with_row`; others are not steered.

    Args:
        pretrained: as for `vllm`, and so are all arguments not named here.
        tables: the rows, or None for the harness's class as it is.
        site, projection: where to steer.

    Attributes:
        replicas: how many engines there are.
        changes: the layers in which each row changes anything in the model's dtype, by name.
        loaded: which model it is, as `loaded_as` tells it.

    Raises:
        ClasError: an argument does not go with steering, or not with this class.
    """

    def __init__(
        self, pretrained: Any, *, tables: RowTables | None, site: Site = "mlp", projection: str | None = None, **kwargs: Any
    ) -> None:
        refuse_launcher()
        require_batch_size(kwargs.get("batch_size", 1), "batch_size")
        self.loaded = loaded_as(pretrained, kwargs)
        own = engine_arguments(tables, site, projection) if tables else {}
        for name in ("worker_cls", "scheduler_cls"):
            if own and kwargs.get(name) is not None:
                raise ClasError(f"{name} is what steers in vLLM, so it cannot be another; drop it.")
        self.replicas = require_replicas(kwargs.pop("data_parallel_size", None))
        if self.replicas > 1:
            kwargs["batch_size"] = "auto"  # as in the harness: one request at a time would leave all but one idle
        self._asked_of: list[set[str]] = [set() for _ in range(self.replicas)]
        if own:
            own["additional_config"] |= kwargs.pop("additional_config", None) or {}
        self._names: Sequence[str | None] = ()
        self._quiet = False
        self._room = tables.room if tables else None
        self.changes: dict[str, list[int]] = {}
        _release_memory()
        refusing = refusing_engines() if tables else nullcontext()
        looking = (refusing_engines.__module__, refusing_engines.__name__) if tables else None
        with strange_arguments_told("vllm-clas", kwargs), refusing, replicated(self.replicas, looking):
            super().__init__(pretrained, **own, **kwargs)
        if tables:
            self.load(tables)
            if self.batch_size == 1 and len(tables.rows) > 1:  # the harness's default
                logger.warning(
                    "vllm-clas: with batch_size 1, vLLM gets one request at a time; with --batch_size auto, requests of all "
                    "languages run in one batch."
                )

    scoring = "vllm"
    batch_size: Any

    @property
    def computes_in(self) -> str:
        """The dtype of the model, such as `bfloat16`."""
        return str(self.model.llm_engine.model_config.dtype).removeprefix("torch.")

    def get_model_info(self) -> dict[str, Any]:
        """What the results file says of the model, in the words that the harness has for `hf`."""
        return {"model_dtype": self.computes_in, "model_revision": self.model_args["revision"] or "main"}

    def load(self, tables: RowTables) -> None:
        """Takes other tables, in place: nothing is compiled or captured again.

        Raises:
            ClasError: there is no room for them.
        """
        assert self._room is not None
        tables.require_room(self._room)
        self._asked_of = [set() for _ in self._asked_of]  # what is counted begins anew with other tables
        self.changes = tables.changes(self.model.collective_rpc("clas_load", args=(tables.dump(),)))

    def take_counts(self) -> dict[str, dict[int, int]]:
        """By row and layer, the tokens that were steered since this was last asked.

        Raises:
            ClasError: a layer did not change each token of a step once.
        """
        if self._room is None:
            return {}
        if self.replicas == 1:
            return steered_tokens(self.model.collective_rpc("clas_take_counts"))
        each = [steered_tokens(counted) for counted in self.model.of_each("collective_rpc", "clas_take_counts")]
        asked, self._asked_of = self._asked_of, [set() for _ in each]
        for number, (names, steered) in enumerate(zip(asked, each, strict=True)):
            if idle := names - set(steered):
                raise ClasError(
                    f"Replica {number} was asked for '{min(idle)}' and steered no position of it, so there is no score; "
                    "something keeps vLLM from running what steers."
                )
        return summed_tokens(each)

    @staticmethod
    def modify_gen_kwargs(
        gen_kwargs: dict[str, Any], eos: Any = None, default_max_gen_toks: int = 256
    ) -> tuple[dict[str, Any], list[str], int]:
        """As the harness's own, but greedy where a task says nothing of sampling, as `hf` is; vLLM's default is to sample."""
        if not {"do_sample", "temperature"} & set(gen_kwargs):
            gen_kwargs = {**gen_kwargs, "do_sample": False}
        found: tuple[dict[str, Any], list[str], int] = _VLLM.modify_gen_kwargs(gen_kwargs, eos, default_max_gen_toks)
        return found

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        require_choices(self, requests)
        with self._asking([getattr(request, "clas_row", None) for request in requests], disable_tqdm):
            return list(super().loglikelihood(requests, disable_tqdm))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        if self._room is None:
            with self._asking((), disable_tqdm):
                return list(super().loglikelihood_rolling(requests, disable_tqdm))
        windows = [self._windows(request.args[0]) for request in requests]
        names = [getattr(request, "clas_row", None) for request, own in zip(requests, windows, strict=True) for _ in own]
        with self._asking(names, disable_tqdm):
            scored = iter(self._loglikelihood_tokens([(None, *window) for own in windows for window in own], disable_tqdm))
        answers = [sum(next(scored)[0] for _ in own) for own in windows]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        require_prompts(requests, lambda text: self.tok_encode([text])[0])  # of one text, it leaves out BOS where that is all
        require_room(self, requests)
        with self._asking((), disable_tqdm):  # here, names are among the options of each request
            return list(super().generate_until(requests, disable_tqdm))

    @contextmanager
    def _asking(self, names: Sequence[str | None], quiet: bool) -> Iterator[None]:
        """Inside it, these are the names of the rows of what is scored, and whether vLLM shows no bars of its own."""
        before = self._names, self._quiet
        # With bars turned off by the environment, vLLM divides by the time that its own did not measure.
        self._names, self._quiet = names, quiet or bool(os.environ.get("TQDM_DISABLE"))
        try:
            yield
        finally:
            self._names, self._quiet = before

    def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
        if self.replicas > 1 and isinstance(sampling_params, list):
            for number, asked in enumerate(self._asked_of):
                asked.update(
                    name
                    for one in sampling_params[number :: self.replicas]
                    if (name := (one.extra_args or {}).get(EXTRA_ARGUMENT)) is not None
                )
        batch_size = self.batch_size
        self.batch_size = -1 if self._quiet else batch_size  # of which the harness only asks here whether it is `auto`
        try:
            return super()._model_generate(requests, generate, sampling_params)
        finally:
            self.batch_size = batch_size

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """A text as the harness cuts it for vLLM: context and continuation of each window."""
        tokens = self.tok_encode(text)
        rolling = get_rolling_token_windows(
            token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 2, context_len=1
        )
        return [make_disjoint_window(window) for window in rolling]

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """As the harness's own, in the same order and batches, but that each request's name goes with its tokens."""
        longest = self.max_length - 1  # vLLM requires at least one token to generate
        require_scorable(requests, longest - 1)
        if self._room is None:
            return list(super()._loglikelihood_tokens(requests, disable_tqdm or self._quiet, **kwargs))
        names = self._names or [None] * len(requests)
        cut = [[*context, *continuation][-longest:] for _, context, continuation in requests]
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i][1]) - len(requests[i][2]), _tokens(requests[i])))
        size = len(order) if self.batch_size == "auto" else int(self.batch_size)
        answers: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), max(1, size)):
            batch = order[start : start + size]
            params = [
                SamplingParams(
                    temperature=0,
                    prompt_logprobs=1,
                    max_tokens=1,
                    detokenize=False,
                    extra_args=None if names[i] is None else {EXTRA_ARGUMENT: names[i]},
                )
                for i in batch
            ]
            outputs = self._model_generate(requests=[cut[i] for i in batch], generate=True, sampling_params=params)
            for i, output in zip(batch, outputs, strict=True):
                key, context, continuation = requests[i]
                if (total := len(context) + len(continuation)) > longest:
                    logger.warning(
                        "vllm-clas: a request of %d tokens is longer than %d; it is cut from the left.", total, longest
                    )
                scored = len(context) - max(0, total - longest)
                answers[i] = self._parse_logprobs(tokens=cut[i], outputs=output, ctxlen=scored)
                if key is not None:
                    self.cache_hook.add_partial("loglikelihood", key, answers[i])
        return [answers[i] for i in range(len(requests))]


def _release_memory() -> None:
    """Gives back what models held that ran in this process before: an engine takes a share of the memory that is free."""
    gc.collect()  # they are held in cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tokens(request: Any) -> tuple[int, ...]:
    return (*request[1], *request[2])
