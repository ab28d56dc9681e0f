"""`FastLM`: the harness's Hugging Face model with `Scorer` for log-likelihoods, chosen by `scoring=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import own_logger
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.logits import HeadError
from lm_eval_clas.decoder.prefixes import Continuation
from lm_eval_clas.decoder.scoring import Scorer, group_batches
from lm_eval_clas.disk.checked_json import shown
from lm_eval_clas.harness.gathering import in_order, own_results, prepare_harness

# Below the harness's own logger, so that its format and level hold and INFO is shown.
logger = own_logger("lm_eval.models.hf_clas")

# A request as HFLM tokenises it: the strings (its key in caches), the context's tokens, the continuation's.
Tokenized = tuple[tuple[str, str], list[int], list[int]]


def default_device() -> str:
    """The machine's accelerator, or the CPU. HFLM's own default is `cuda`, which fails where there is none."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator is not None else "cpu"


class FastLM(HFLM):
    """HFLM that computes only the logits that are read and runs shared prefixes once.

    Under a launcher, each process has a copy of the model and answers its own requests, without waiting for the others.

    Args:
        pretrained: as for `hf`, and so are all arguments not named here.
        scoring: `fast`, or `stock` for HFLM's own path, float for float.

    Raises:
        ClasError: `scoring` is neither.
    """

    cache_hook: Any
    batch_schedule: float
    _rank: int
    _world_size: int

    def __init__(self, pretrained: Any, scoring: str = "fast", **kwargs: Any) -> None:
        if scoring not in ("fast", "stock"):
            raise ClasError(f"scoring must be fast or stock, not '{scoring}'.")
        if kwargs.get("device") is None:
            kwargs["device"] = default_device()
        # As in HFLM, a model that is there already, or that is spread over the processes, is one for all of them.
        separate = isinstance(pretrained, str) and kwargs.get("tp_plan") is None
        processes = Processes.launched() if separate else Processes()
        if processes.size > 1:
            prepare_harness()
        super().__init__(pretrained, **kwargs)
        # HFLM leaves both at one process where there are no GPUs, or one on each machine, and takes the number on the
        # machine for the one among all.
        self._rank, self._world_size = processes.rank, processes.size
        self._scorer: Scorer | None = None
        self._auto_batch_size: int | None = None
        # Encoder-decoders, models in slices, and prompt tuning, which puts positions in front of the input, keep to HFLM's
        # path.
        prompts = getattr(getattr(self.model, "active_peft_config", None), "is_prompt_learning", False)
        if scoring == "fast" and self.backend == "causal" and not prompts and kwargs.get("tp_plan") is None:
            try:
                self._scorer = Scorer(self.model, self.device, self.softmax_dtype)
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
        for context, continuation, *_ in (request.args for request in requests):
            # The harness reads the first token of a continuation without a context.
            if context == "" and not continuation.strip() and not self.tok_encode(continuation, add_special_tokens=False):
                raise self._unscorable(0, 0)
        return list(super().loglikelihood(requests, disable_tqdm))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        for context in {request.args[0] for request in requests if not request.args[0].strip()}:
            if not self.tok_encode(context):
                raise ClasError(
                    "A text cannot be generated after an empty prompt, as this tokenizer puts no token of its own in front; "
                    "give the task a prompt."
                )
        self._require_room(requests)
        return list(super().generate_until(requests, disable_tqdm))

    def _loglikelihood_tokens(
        self, requests: list[Tokenized], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        for _, context, continuation in requests:
            if not context or not 0 < len(continuation) <= self.max_length:
                raise self._unscorable(len(context), len(continuation))
        if self._scorer is not None:
            try:
                return self._score(self._scorer, requests, disable_tqdm, override_bs)
            except HeadError as error:
                logger.warning("hf-clas: scoring=stock is used from here on: %s", error)
                self._scorer = None
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
            self.batch_sizes: dict[int, int] = {}
            longest = [requests[next(iter(group.members[max(group.members, key=len)]))] for group in groups]
        autocast = torch.autocast(
            self.device.type, dtype=self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None
        )
        with (
            tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm or self.rank != 0) as bar,
            autocast,
        ):
            for batch in group_batches(groups, lambda at: self._batch_scheduler(at, longest) if size == "auto" else int(size)):
                for position, log_likelihood, is_greedy in scorer.score(batch, scored):
                    answers[position] = (log_likelihood, is_greedy)
                    key = requests[position][0]
                    if key is not None:  # windows of a rolling log-likelihood have none: the whole is cached there
                        self.cache_hook.add_partial("loglikelihood", key, answers[position])
                    bar.update()
        return [answers[position] for position in range(len(requests))]

    def _unscorable(self, context: int, continuation: int) -> ClasError:
        return ClasError(
            f"A continuation of {continuation} tokens after {context} cannot be scored: it takes a context, and at least one "
            f"token and at most the model's {self.max_length} of a continuation."
        )

    def _require_room(self, requests: Sequence[Instance]) -> None:
        """Refuses to generate so much that no prompt fits before it, which the harness finds out in the middle of a run."""
        for given in {repr(request.args[1]): request.args[1] for request in requests}.values():
            try:
                wanted = normalize_gen_kwargs(given, self.max_gen_toks)["max_gen_toks"]
            except (TypeError, ValueError, OverflowError) as error:
                raise ClasError(
                    f"Texts cannot be generated with {shown(str(given))} ({error}); give the task or --gen_kwargs numbers."
                ) from error
            if not 0 < wanted < self.max_length:
                raise ClasError(
                    f"A text of {wanted} tokens cannot be generated, as the model takes {self.max_length} with the prompt; "
                    "give the task or --gen_kwargs a max_gen_toks from 1 to less than that."
                )

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
        try:
            return int(super()._batch_scheduler(pos, n_reordered_requests))
        finally:
            self.batch_schedule = schedule
