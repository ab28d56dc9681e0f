"""`FastLM`: the harness's Hugging Face model with `Scorer` and `GreedyDecoder` under it, chosen by `scoring=`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from lm_eval_clas.base.logs import logger
from lm_eval_clas.base.near_names import require_known
from lm_eval_clas.base.plain_numbers import require_batch_size
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.greedy import GreedyDecoder, Ways, chooses_plainly
from lm_eval_clas.decoder.logits import HeadError
from lm_eval_clas.decoder.prefixes import Continuation
from lm_eval_clas.decoder.scoring import Scorer, group_batches
from lm_eval_clas.harness.common.answerable import (
    Tokenized,
    require_choices,
    require_prompts,
    require_room,
    require_scorable,
)
from lm_eval_clas.harness.common.argument_names import (
    loading_names,
    named_in,
    options_of_model,
    refuse_slips,
    strange_arguments_told,
)
from lm_eval_clas.harness.common.loaded_model import loaded_as
from lm_eval_clas.harness.gathering import in_order, own_results, prepare_harness


def default_device() -> str:
    """The machine's accelerator, or the CPU. HFLM's own default is `cuda`, which fails where there is none."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator is not None else "cpu"


def refuse_slips_in_loading(
    asker: str, kind: type[HFLM], pretrained: object, given: Mapping[str, Any], where: str = "--model_args"
) -> None:
    """Refuses arguments that are slips of those that a class takes, or that transformers takes to load its model.

    Raises:
        ClasError: there is one; the sentence names what was meant.
    """
    known = named_in(kind, kind._create_model) | loading_names()
    refuse_slips(asker, given, known, lambda: options_of_model(pretrained, given), where)


class FastLM(HFLM):
    """HFLM that computes only the logits that are read, runs shared prefixes once, and ends each answer by itself.

    Under a launcher, each process has a copy of the model and answers its own requests, without waiting for the others.

    Args:
        pretrained: as for `hf`, and so are all arguments not named here.
        scoring: `fast`, or `stock` for HFLM's own path, float for float.

    Raises:
        ClasError: `scoring` is neither, or `batch_size` is none.

    Attributes:
        loaded: which model it is, as `loaded_as` tells it.
    """

    cache_hook: Any
    batch_schedule: float
    batch_sizes: dict[int, int]
    _rank: int
    _world_size: int

    def __init__(self, pretrained: Any, scoring: str = "fast", **kwargs: Any) -> None:
        require_known("scoring", scoring, ("fast", "stock"))
        require_batch_size(kwargs.get("batch_size", 1), "batch_size")
        self.loaded = loaded_as(pretrained, kwargs)
        if kwargs.get("device") is None:
            kwargs["device"] = default_device()
        # As in HFLM, a model that is there already, or that is spread over the processes, is one for all of them.
        separate = isinstance(pretrained, str) and kwargs.get("tp_plan") is None
        processes = Processes.launched() if separate else Processes()
        if processes.size > 1:
            prepare_harness()
        with strange_arguments_told(getattr(self, "harness_name", "hf"), kwargs):
            super().__init__(pretrained, **kwargs)
        # HFLM leaves both at one process where there are no GPUs, or one on each machine, and takes the number on the
        # machine for the one among all.
        self._rank, self._world_size = processes.rank, processes.size
        self._scorer: Scorer | None = None
        self._decoder: GreedyDecoder | None = None
        self._auto_batch_size: int | None = None
        # Encoder-decoders, models in slices, and prompt tuning, which puts positions in front of the input, keep to HFLM's
        # path.
        prompts = getattr(getattr(self.model, "active_peft_config", None), "is_prompt_learning", False)
        if scoring == "fast" and self.backend == "causal" and not prompts and kwargs.get("tp_plan") is None:
            try:
                self._scorer = Scorer(self.model, self.device, self.softmax_dtype)
                self._decoder = GreedyDecoder(self.model, self.device) if chooses_plainly(self.model) else None
            except HeadError as error:
                logger.info("hf-clas: scoring=stock is used: %s", error)

    @property
    def scoring(self) -> str:
        """`fast`, or `stock` where that was asked for or the model allows nothing else."""
        return "stock" if self._scorer is None else "fast"

    @property
    def computes_in(self) -> str:
        """The dtype of the model's weights, such as `bfloat16`, and that of its passes where it is another."""
        weights, passes = (str(one).removeprefix("torch.") for one in (self.model.dtype, self.mixed_precision_dtype))
        return weights if self.mixed_precision_dtype is None else f"{weights} under autocast to {passes}"

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """This process's tensor in the place of everybody's, [processes, ...].

        The harness asks for batch sizes and numbers of requests, to keep the processes of a model in step that is spread
        over them. Here each has a model of its own. So none waits for another, whatever the languages of its requests and
        whatever it finds in its cache; and no request is repeated as padding, which would show in the samples.
        """
        return torch.cat([tensor if tensor.ndim else tensor[None]] * self.world_size)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Everybody's results; those of the harness's documents in the order of a single process."""
        gathered = super().gather_object(own_results(obj), dst)
        return None if gathered is None else in_order(gathered)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        require_choices(self, requests)
        return list(super().loglikelihood(requests, disable_tqdm))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        require_prompts(requests, self.tok_encode)
        require_room(self, requests)
        by_options: dict[tuple[tuple[str, ...], int] | None, list[int]] = {}
        for position, request in enumerate(requests):
            by_options.setdefault(self._greedy(request.args[1]), []).append(position)
        stock = by_options.pop(None, [])
        answers: dict[int, str] = {}
        quiet = disable_tqdm or self.rank != 0 or not by_options
        with tqdm(total=len(requests) - len(stock), desc="Running generate_until requests", disable=quiet) as bar:
            for positions in by_options.values():
                asked = [requests[position] for position in positions]
                try:
                    for place, (answer,) in self._written(asked, Ways()):
                        answers[positions[place]] = answer
                        self.cache_hook.add_partial("generate_until", asked[place].args, answer)
                        bar.update()
                except HeadError as error:
                    self._keep_to_stock(error)
                    stock += [position for position in positions if position not in answers]
        if stock:
            answers.update(zip(stock, super().generate_until([requests[i] for i in stock], disable_tqdm), strict=True))
        return [answers[position] for position in range(len(requests))]

    def generates_fast(self, options: Mapping[str, Any]) -> bool:
        """Whether `GreedyDecoder` writes the answer to a request with such generation options."""
        return self._greedy(options) is not None

    def generation_batches(self, requests: Sequence[Instance], size: int) -> list[list[int]]:
        """Positions of requests, all with the same options, that `GreedyDecoder` runs together."""
        assert self._decoder is not None
        return [
            [owner for group in batch for owners in group.members.values() for owner in owners]
            for batch in self._decoder.plan(self._prompts(requests), size)
        ]

    def generate_in(self, ways: Ways, requests: Sequence[Instance], check: bool) -> list[list[str]] | None:
        """The answers in each of several ways, [ways][requests], to requests with the same options, for which `generates_fast`.

        Args:
            ways: they begin a batch anew with their first one.
            requests: one of `generation_batches`.
            check: whether to see if prompts are the same inside `ways.prompts` as outside.

        Returns:
            None where they are not, or where `generates_fast` holds no longer.
        """
        require_prompts(requests, self.tok_encode)
        decoder = self._decoder
        assert decoder is not None
        try:
            answers = dict(self._written(requests, ways))
            if check:
                (batch,) = decoder.plan(self._prompts(requests), len(requests))
                with self._autocast():
                    if not decoder.prompts_hold(batch, ways):
                        return None
        except HeadError as error:
            self._keep_to_stock(error)
            return None
        return [[answers[position][way] for position in range(len(requests))] for way in range(ways.count)]

    def _greedy(self, options: Mapping[str, Any]) -> tuple[tuple[str, ...], int] | None:
        """The texts that end an answer and the most tokens it has, where the options ask for no more than greedy choices."""
        until, most = options.get("until", []), options.get("max_gen_toks", self.max_gen_toks)
        until = [until] if isinstance(until, str) else until
        plain = (
            self._decoder is not None
            and not set(options) - {"until", "max_gen_toks", "do_sample", "temperature"}
            and not options.get("do_sample")
            and not options.get("temperature")
            and isinstance(until, list)
            and all(isinstance(text, str) for text in until)
            and isinstance(most, int)
            and 0 < most < self.max_length
            and getattr(self, "think_end_token", None) is None
        )
        if not plain:
            return None
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        return tuple(until if end in until else [*until, end]), most

    def _prompts(self, requests: Sequence[Instance]) -> list[tuple[int, ...]]:
        """The tokens of each request's prompt, cut from the left as the harness does it for a prompt that runs alone."""
        known = self._greedy(requests[0].args[1])
        assert known is not None
        room = self.max_length - known[1]
        return [
            tuple(self.tok_batch_encode([request.args[0]], left_truncate_len=room, truncation=self.truncation)[0][0].tolist())
            for request in requests
        ]

    def _written(self, requests: Sequence[Instance], ways: Ways) -> Iterator[tuple[int, list[str]]]:
        """The position of each request, all with the same options, and its answers by way, as they are found."""
        decoder, known = self._decoder, self._greedy(requests[0].args[1])
        assert decoder is not None
        assert known is not None
        until, most = known
        stops = _Stops(self.tokenizer, until)
        size: Any = self.batch_size
        size = self._detect_batch_size() if size == "auto" else int(size)
        for batch in decoder.plan(self._prompts(requests), size):
            with self._autocast():
                written = decoder.write(batch, size, most, stops, ways)
            for positions, by_way in written:
                answers = [_before(until, self.tok_decode(tokens)) for tokens in by_way]
                yield from ((position, answers) for position in positions)

    def _loglikelihood_tokens(
        self, requests: list[Tokenized], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        require_scorable(requests, self.max_length)
        if self._scorer is not None:
            try:
                return self._score(self._scorer, requests, disable_tqdm, override_bs)
            except HeadError as error:
                self._keep_to_stock(error)
        return list(super()._loglikelihood_tokens(requests, disable_tqdm, override_bs))

    def _score(
        self, scorer: Scorer, requests: list[Tokenized], disable_tqdm: bool, override_bs: int | None
    ) -> list[tuple[float, bool]]:
        scored = [self._cut(context, continuation) for _, context, continuation in requests]
        groups = scorer.plan(scored)
        answers: dict[int, tuple[float, bool]] = {}
        size: Any = self.batch_size
        if size == "auto" and override_bs:
            size = override_bs
        if size == "auto":
            self.batch_sizes = {}
            longest = [requests[next(iter(group.members[max(group.members, key=len)]))] for group in groups]
        with (
            tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm or self.rank != 0) as bar,
            self._autocast(),
        ):
            for batch in group_batches(groups, lambda at: self._batch_scheduler(at, longest) if size == "auto" else int(size)):
                for position, log_likelihood, is_greedy in scorer.score(batch, scored):
                    answers[position] = (log_likelihood, is_greedy)
                    key = requests[position][0]
                    if key is not None:  # windows of a rolling log-likelihood have none: the whole is cached there
                        self.cache_hook.add_partial("loglikelihood", key, answers[position])
                    bar.update()
        return [answers[position] for position in range(len(requests))]

    def _keep_to_stock(self, error: HeadError) -> None:
        logger.warning("hf-clas: scoring=stock is used from here on: %s", error)
        self._scorer = self._decoder = None

    def _autocast(self) -> torch.autocast:
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _cut(self, context: list[int], continuation: list[int]) -> Continuation:
        """What HFLM feeds to the model: all but the last token, cut from the left to the model's length."""
        tokens = (context + continuation)[-(self.max_length + 1) :][:-1]
        if (total := len(context) + len(continuation)) > self.max_length + 1:
            logger.warning(
                "hf-clas: a request of %d tokens is longer than the model's %d; it is cut from the left.",
                total,
                self.max_length,
            )
        return Continuation(tuple(tokens), tuple(continuation))

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        # Without requests, the answer depends on the model alone; one search serves every language.
        if requests:
            return int(super()._detect_batch_size(requests, pos))
        if self._auto_batch_size is None:
            self._auto_batch_size = int(super()._detect_batch_size(None, pos))
        return self._auto_batch_size

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence[Any]) -> int:
        # `auto:N` divides the requests into N parts; a language may have fewer requests than that.
        schedule, self.batch_schedule = self.batch_schedule, min(self.batch_schedule, len(n_reordered_requests))
        # HFLM asks at every request and looks at the part before. Here it is asked where a batch begins, which may leave out
        # whole parts: they have the size of the longer ones in front of them.
        for part in range(1, pos // int(len(n_reordered_requests) / self.batch_schedule)):
            self.batch_sizes.setdefault(part, self.batch_sizes[part - 1])
        try:
            return int(super()._batch_scheduler(pos, n_reordered_requests))
        finally:
            self.batch_schedule = schedule


class _Stops:
    """Whether an answer's last tokens have one of the texts that end it, looked for as the harness does."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        # A text may be written in other tokens than the tokenizer's; two more than it takes are looked at.
        self._windows = [(text, len(tokenizer.encode(text, add_special_tokens=False)) + 2) for text in texts]

    def __call__(self, answer: Sequence[int]) -> bool:
        return any(text in self._tokenizer.decode(answer[-window:]) for text, window in self._windows)


def _before(texts: Sequence[str], answer: str) -> str:
    """What is before the first of the texts that end an answer."""
    for text in filter(None, texts):
        answer = answer.split(text)[0]
    return answer
