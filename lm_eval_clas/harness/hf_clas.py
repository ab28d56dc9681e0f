"""`CLASLM`: the harness's Hugging Face model, steered by the language of each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from tqdm import tqdm

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.projections import slices_error
from lm_eval_clas.harness.common.asked_steering import AskedSteering
from lm_eval_clas.harness.common.plain_end import end_plainly
from lm_eval_clas.harness.common.steered_lm import AnswerAll, RequestGroup, Response, SteeredLM, code_of
from lm_eval_clas.harness.fast_lm import FastLM, refuse_slips_in_loading
from lm_eval_clas.harness.gathering import lent
from lm_eval_clas.harness.plugin import register
from lm_eval_clas.harness.tally import Witness
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.language_blocks import LanguageBlock


class CLASLM(SteeredLM[ActivationSteerer], FastLM):
    """HFLM with Cross-Lingual Activation Steering (arXiv 2601.16390).

    Requests are grouped by language, each group runs steered for its language, and the answers come back in order. The
    anchor's requests, and all requests where there is nothing to steer (no masks, `alpha=0`, `method=off`), are answered by
    the unsteered model: with `scoring=stock` on HFLM's own path, float for float, and with `scoring=fast` (the default) with
    the same numbers up to rounding.

    Args:
        pretrained: as for `hf`, and so are all arguments not named here.
        masks: a mask folder, the name of a shipped one, or a Hub repository `user/name[@revision]`; None for no steering.
        alpha: strength: a number, a JSON file with one by language, or `tuned`: what `clas tune` chose by task and language.
            With `method=int-mu`, the way from the activation (0) to the language's mean (1); with `diffmean` and
            `random-direction`, a share of the length of the hidden state.
        beta: amplification of partial-shared neurons; default: the mask folder's (0.4).
        gamma: damping of language-specific neurons; default: the mask folder's (0.2).
        layers: bridge layers as a range like `24-29`; default: the mask folder's.
        specific_scope: `all` or `own`.
        partial_scope: `all`, `own` or `anchor`.
        method: `clas`; its controls `uniform` and `random`; on neurons, `int-mu` and `arithmetic`, which need masks with means;
            on what leaves the layers, `diffmean`, its control `random-direction`, and `incline`, which need masks made with
            `--residual`; or `off`. Only CLAS and its controls look at beta, gamma and scopes.
        seed: of `method=random` and `random-direction`.
        language: one language for every request, instead of recognising it.
        pair: which language counts where a task's name has two (`wmt16-de-en`): the `target`, the second, which is what the
            model writes or is asked in; the `source`; or `off` for neither, so that such requests are left alone.
        unseen: what to do with a language that the masks do not know: `off` leaves it alone, `shared` steers it with the
            neurons of scope `all`.
        projection: a pattern of module names, for models whose projections at the masks' site are not found by structure.
        scoring: `fast` computes only the logits that are read, and runs what prompts share once, also to generate greedily;
            `stock` is HFLM's own path, float for float.

    Raises:
        ClasError: an option is wrong, or the masks do not fit the model.
    """

    harness_name = "hf-clas"

    def __init__(
        self,
        pretrained: Any,
        masks: str | Path | MaskSet | None = None,
        alpha: float | str | Mapping[str, float] = 1.0,
        beta: float | str | None = None,
        gamma: float | str | None = None,
        layers: str | int | Sequence[int] | None = None,
        specific_scope: str = "all",
        partial_scope: str = "all",
        method: str = "clas",
        seed: int = 0,
        language: str | None = None,
        unseen: str = "off",
        pair: str = "target",
        projection: str | None = None,
        scoring: str = "fast",
        **kwargs: Any,
    ) -> None:
        end_plainly()
        refuse_slips_in_loading(self.harness_name, CLASLM, pretrained, kwargs)
        options = {
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "layers": layers,
            "specific_scope": specific_scope,
            "partial_scope": partial_scope,
            "method": method,
            "seed": seed,
        }
        asked = AskedSteering(masks, options, language=language, unseen=unseen, pair=pair, projection=projection)
        self._will_steer(asked)
        if self._masks is not None and kwargs.get("tp_plan") is not None:
            raise slices_error()
        self._in_force: Callable[[], AbstractContextManager[Any]] = nullcontext
        super().__init__(pretrained, scoring=scoring, **kwargs)
        if self._masks is not None and self.backend != "causal":
            raise ClasError("hf-clas steers decoder-only models; this one is an encoder-decoder: use --model hf.")
        processes = Processes(self.rank, self.world_size)
        self._steer_with(lambda masks, **every: ActivationSteerer(self.model, masks, projection=projection, **every), processes)

    def _answer_groups(
        self,
        answer: AnswerAll[Response],
        groups: Sequence[RequestGroup[ActivationSteerer]],
        answers: dict[int, Response],
        total: int,
        disable_tqdm: bool,
    ) -> None:
        """One group after the other, each in a block of its language."""
        with self._one_bar(answer.__name__, total, disable_tqdm) as bar:
            bar.update(len(answers))
            try:
                for group in groups:
                    unsteered = group.steerer.steering.does_nothing or group.language == group.steerer.masks.anchor
                    bar.set_postfix_str("not steered" if unsteered else group.language)
                    self._in_force = partial(group.steerer.language, code_of(group.language))
                    with self._in_force() as block, self._remembering(group.family, group.language):
                        given = answer(group.requests, True) if group.requests else []
                    answers.update(zip(group.positions, given, strict=True))
                    if block.layers and group.requests:
                        self._bear_witness(group.steerer, block, group.name, group.requests)
            finally:
                self._in_force = nullcontext

    def _bear_witness(self, steerer: ActivationSteerer, block: LanguageBlock, key: str, asked: Sequence[Instance]) -> None:
        """Notes what was steered for requests, all of which were to be."""
        block.require_steered(f"{len(asked)} requests")
        check = steerer.check.info() if steerer.check else {}
        witness = self._tally.witnesses.setdefault(key, Witness(steerer.factors_hash(block.language), check))
        witness.add(sum(not lent(request.task_name) for request in asked), block.positions)

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        with self._in_force():  # in a block of its own: what is tried out is steered, but answers no request
            return super()._detect_batch_size(requests, pos)

    @contextmanager
    def _one_bar(self, kind: str, total: int, disable: bool) -> Iterator[Any]:
        """One progress bar for all languages in place of HFLM's, which would be one for each."""
        hook = self.cache_hook
        with tqdm(total=total, desc=f"Running {kind} requests", disable=disable or self.rank != 0) as bar:

            class Counting:
                """The cache hook, which HFLM calls once for each answered request."""

                def add_partial(self, *answered: Any) -> None:
                    bar.update()
                    hook.add_partial(*answered)

            self.cache_hook = Counting()
            try:
                yield bar
            finally:
                self.cache_hook = hook


# For programs that import this module where neither the hook nor an entry point is at work. Not the harness's decorator:
# it refuses a name that an entry point already holds.
register()
