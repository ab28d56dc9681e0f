"""`CLASLM`: the harness's Hugging Face model, steered by the language of each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from tqdm import tqdm

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.projections import slices_error
from lm_eval_clas.harness.answer_cache import AnswerCache, require_apart
from lm_eval_clas.harness.fast_lm import FastLM, logger
from lm_eval_clas.harness.gathering import lent
from lm_eval_clas.harness.plugin import register
from lm_eval_clas.harness.tally import RunTally, Witness, told_in_a_line
from lm_eval_clas.harness.tuning_differences import TuningDifferences
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.languages.task_names import PAIRS
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.by_task import TunedSteering
from lm_eval_clas.steering.effects import steering_factors
from lm_eval_clas.steering.language_blocks import LanguageBlock
from lm_eval_clas.steering.options import SteeringOptions, refuse_without_masks, require_tuned

Response = TypeVar("Response")


class CLASLM(FastLM):
    """HFLM with Cross-Lingual Activation Steering (arXiv 2601.16390).

    Requests are grouped by language, each group runs steered for its language, and the answers come back in order. The
    anchor's requests, and all requests where there is nothing to steer (no masks, `alpha=0`, `method=off`), take exactly
    HFLM's path.

    Args:
        pretrained: as for `hf`, and so are all arguments not named here.
        masks: a mask folder, the name of a shipped one, or a Hub repository `user/name[@revision]`; None for no steering.
        alpha: strength: a number, a JSON file with one by language, or `tuned`: what `clas tune` chose by task and language.
            With `method=int-mu`, the way from the activation (0) to the language's mean (1).
        beta: amplification of partial-shared neurons; default: the mask folder's (0.4).
        gamma: damping of language-specific neurons; default: the mask folder's (0.2).
        layers: bridge layers as a range like `24-29`; default: the mask folder's.
        specific_scope: `all` or `own`.
        partial_scope: `all`, `own` or `anchor`.
        method: `clas`; the controls `uniform` and `random`; the baseline `int-mu`, which needs masks with means and looks
            at neither beta, gamma nor scopes; or `off`.
        seed: of `method=random`.
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
        if unseen not in ("off", "shared"):
            raise ClasError(f"unseen must be off or shared, not '{unseen}'.")
        if pair not in PAIRS:
            raise ClasError(f"pair must be {', '.join(PAIRS[:-1])} or {PAIRS[-1]}, not '{pair}'.")
        self._unseen = unseen
        # Masks and options are checked before the model is loaded: loading takes minutes, a slip should not.
        self._masks = masks if isinstance(masks, MaskSet) else MaskSet.load(masks) if masks else None
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
        if self._masks is None:
            refuse_without_masks({**options, "language": language, "unseen": unseen, "pair": pair, "projection": projection})
        elif alpha == "tuned":
            require_tuned(self._masks, unseen, method)
            SteeringOptions.parse(self._masks, **{**options, "alpha": 0.0})  # type: ignore[arg-type]
        else:
            checked = SteeringOptions.parse(self._masks, **options)  # type: ignore[arg-type]
            if unseen == "shared":
                steering_factors(self._masks, checked, None)  # refuses what does not go together
        if self._masks is not None and kwargs.get("tp_plan") is not None:
            raise slices_error()
        self._in_force: Callable[[], AbstractContextManager[Any]] = nullcontext
        super().__init__(pretrained, scoring=scoring, **kwargs)
        self._steerer: ActivationSteerer | None = None
        self._tuned: TunedSteering | None = None
        self._differences: TuningDifferences | None = None
        if self._masks is not None:
            if self.backend != "causal":
                raise ClasError("hf-clas steers decoder-only models; this one is an encoder-decoder: use --model hf.")
            self._tuned = TunedSteering(self.model, self._masks, projection, options) if alpha == "tuned" else None
            self._differences = TuningDifferences(self._masks) if self._tuned else None
            # With tuned strengths, this one is for whatever was not tuned.
            fixed = {**options, "alpha": 0.0} if self._tuned else options
            self._steerer = ActivationSteerer(self.model, self._masks, projection=projection, **fixed)
            processes = Processes(self.rank, self.world_size)
            self._router = LanguageRouter(self._masks.languages, self._forced(language), pair, processes)  # type: ignore[arg-type]
        self._tally = RunTally()
        self._answers = AnswerCache()

    def _forced(self, language: str | None) -> str | None:
        if language is None:
            return None
        assert self._masks is not None
        code = parse_language(str(language))
        if code is None:
            raise ClasError(f"language={language} is not a language; give a code or a name, e.g. hi or Hindi.")
        if self._unseen == "off":
            self._masks.code_of(code)
        return code

    # The three methods where the language of a request is still known: below, only strings and tokens go on.

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._by_language(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self._by_language(super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._by_language(super().generate_until, requests, disable_tqdm)

    def _by_language(
        self, answer: Callable[[list[Instance], bool], list[Response]], requests: list[Instance], disable_tqdm: bool
    ) -> list[Response]:
        """Answers requests, each group steered for its language (and task), in the order of the requests."""
        if self._masks is None or self._steerer is None or not self._steers:
            return answer(requests, disable_tqdm)
        if self._tally.another_run():
            self._forget()
        try:
            return self._answered(self._steerer, answer, requests, disable_tqdm)
        except BaseException:
            self._forget()  # whatever comes next is no part of this run
            raise
        finally:
            self._in_force = nullcontext

    def _answered(
        self,
        steerer: ActivationSteerer,
        answer: Callable[[list[Instance], bool], list[Response]],
        requests: list[Instance],
        disable_tqdm: bool,
    ) -> list[Response]:
        assert self._masks is not None
        groups: dict[tuple[str, str], list[int]] = {}
        found = self._router.recognize(requests)
        for position, (request, one) in enumerate(zip(requests, found, strict=True)):
            if not lent(request.task_name):
                self._note(one.language, one.source)
            family = self._tuned.family(request.task_name) if self._tuned else ""
            groups.setdefault((family, self._steered_as(one.language)), []).append(position)
        answers: dict[int, Response] = {}
        for (family, group), positions in groups.items():  # before any is answered, as requests that are alike do not share
            with self._remembering(family, group):
                known = self._answers.find(answer.__name__, [requests[i] for i in positions])
            answers.update((positions[place], one) for place, one in known.items())
        self._tally.cached.update(found[i].language for i in answers if not lent(requests[i].task_name))
        with self._one_bar(answer.__name__, len(requests), disable_tqdm) as bar:
            bar.update(len(answers))
            for (family, group), positions in groups.items():
                steerer = self._steerer_of(family, group)
                if self._differences:
                    self._differences.look(family, group, [requests[i] for i in positions], self.computes_in, self.scoring)
                bar.set_postfix_str("not steered" if steerer.steering.does_nothing or group == self._masks.anchor else group)
                missing = [position for position in positions if position not in answers]
                asked = [requests[i] for i in missing]
                self._in_force = partial(steerer.language, _NO_CODE.get(group, group))
                with self._in_force() as block, self._remembering(family, group):
                    given = answer(asked, True) if asked else []
                answers.update(zip(missing, given, strict=True))
                if block.layers and asked:
                    self._bear_witness(steerer, block, f"{group} in {family}" if self._tuned else group, asked)
        return [answers[position] for position in range(len(requests))]

    def _bear_witness(self, steerer: ActivationSteerer, block: LanguageBlock, key: str, asked: Sequence[Instance]) -> None:
        """Notes what was steered for requests, all of which were to be."""
        block.require_steered(f"{len(asked)} requests")
        check = steerer.check.info() if steerer.check else {}
        witness = self._tally.witnesses.setdefault(key, Witness(steerer.factors_hash(block.language), check))
        witness.add(sum(not lent(request.task_name) for request in asked), block.positions)

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        with self._in_force():  # in a block of its own: what is tried out is steered, but answers no request
            return super()._detect_batch_size(requests, pos)

    @property
    def _steers(self) -> bool:
        """Whether there is anything to steer with."""
        return self._tuned is not None or (self._steerer is not None and not self._steerer.steering.does_nothing)

    def _remembering(self, family: str, group: str) -> AbstractContextManager[None]:
        """Inside it, the cache finds and keeps answers of one group's steering."""
        return self._answers.steered(self._steerer_of(family, group).digest(_NO_CODE.get(group, group)), group, family)

    def _steerer_of(self, family: str, language: str) -> ActivationSteerer:
        assert self._masks is not None
        assert self._steerer is not None
        if self._tuned is None or language == self._masks.anchor:
            return self._steerer
        tuned = self._tuned.steerer(family, language)
        if tuned is None and (family, language) not in self._tally.alone:
            logger.warning(
                "hf-clas: no strength is tuned for task %s in language '%s' (tuned are %s); its requests are not steered.",
                family,
                language,
                "; ".join(f"{task}: {', '.join(languages)}" for task, languages in self._tuned.strengths.items()),
            )
        if why := "not tuned" if tuned is None else tuned.unchanged(language):
            self._tally.alone[family, language] = why.replace("alpha is 0", "tuned to 0")
        return tuned or self._steerer

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

    def _steered_as(self, language: str) -> str:
        """The language whose factors a request gets; the anchor's are all ones."""
        assert self._masks is not None
        if (known := as_known(language, self._masks.languages)) in self._masks.languages:
            return known
        return _UNSEEN if self._unseen == "shared" and language != UNDETERMINED else self._masks.anchor

    def _note(self, language: str, source: str) -> None:
        assert self._masks is not None
        known = as_known(language, self._masks.languages) in (*self._masks.languages, UNDETERMINED)
        if not known and self._unseen == "off" and not any(seen == language for seen, _ in self._tally.recognized):
            logger.warning(
                "hf-clas: the masks do not know language '%s' (they have %s); its requests are not steered. "
                "Use unseen=shared to steer them with the neurons that languages share.",
                language,
                ", ".join(self._masks.languages),
            )
        self._tally.recognized[language, source] += 1

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Takes the database of `--use_cache`, and keeps answers in it by request and steering.

        Raises:
            ClasError: its steered answers cannot be told apart.
        """
        if cache_hook.dbdict is not None:
            require_apart(cache_hook.dbdict)
            if self._steers:
                cache_hook = self._answers = AnswerCache(cache_hook.dbdict)
        super().set_cache_hook(cache_hook)
        self._forget()  # another run begins, which may ask nothing of the model

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Everybody's results, and on the way what everybody steered, which the main process tells of."""
        found = self._differences.state if self._differences else None
        told = super().gather_object([self._tally.state, found], dst)
        if told is None:
            self._forget()
        else:
            self._tally.gathered(state for state, _ in told)
            if self._differences:
                self._differences.gathered(found for _, found in told)
        return super().gather_object(obj, dst)

    def get_model_info(self) -> dict[str, Any]:
        """What HFLM tells of the model, and under `clas` what was steered and how; both go into the results file."""
        info = self.steering_info()
        logger.info("hf-clas: %s", told_in_a_line(info))
        self._forget()  # a model may be used for another run, which tells of its own requests
        return {**super().get_model_info(), "clas": info}

    def _forget(self) -> None:
        self._tally.clear()
        if self._differences:
            self._differences.clear()

    def steering_info(self) -> dict[str, Any]:
        """What was steered, as plain JSON: options, mask hash, and each language with how it was recognised."""
        if self._masks is None or self._steerer is None:
            return {"version": __version__, "scoring": self.scoring, "method": "off", "why": "no masks were given"}
        steering = self._steerer.steering
        languages = self._tally.languages()
        left_alone: dict[str, str] = {}
        for language, entry in languages.items():
            known = as_known(language, self._masks.languages)
            if known != language:
                entry["steered_as"] = known  # its macrolanguage, or a member of it
            if known == self._masks.anchor:
                left_alone[language] = "anchor"
            elif language == UNDETERMINED:
                left_alone[language] = "not recognised"
            elif known not in self._masks.languages and self._unseen == "off":
                left_alone[language] = "not in the masks"
            elif self._tuned is None and (why := self._steerer.unchanged(known if known in self._masks.languages else None)):
                left_alone[language] = why
        tuned: dict[str, Any] = {}
        if self._tuned is not None:
            left_alone |= {f"{language} in {family}": why for (family, language), why in sorted(self._tally.alone.items())}
            tuned["tuned"] = {
                family: {language: setting.options() for language, setting in by_language.items()}
                for family, by_language in self._tuned.strengths.items()
            }
            tuned["unlike_tuning"] = self._differences.info() if self._differences else {}
        info = {
            "version": __version__,
            "scoring": self.scoring,
            "method": "off" if steering.does_nothing and not tuned else steering.method,
            "masks": self._masks.config.model.name,
            "masks_hash": self._masks.hash,
            **(self._masks.origin.info() if self._masks.origin else {}),
            "site": self._masks.config.site,
            "specific": self._masks.config.specific.source,
            "anchor": self._masks.anchor,
            "alpha": "tuned" if tuned else dict(steering.alpha) if isinstance(steering.alpha, Mapping) else steering.alpha,
            **tuned,
            "beta": steering.beta,
            "gamma": steering.gamma,
            "layers": list(steering.layers),
            "specific_scope": steering.specific_scope,
            "partial_scope": steering.partial_scope,
            "seed": steering.seed,
            "unseen": self._unseen,
            "forced_language": self._router.forced,
            "pair": self._router.pair,
            "languages": languages,
            "left_alone": left_alone,
            "witness": {key: witness.info() for key, witness in sorted(self._tally.witnesses.items())},
        }
        if steering.method == "int-mu":
            info = {name: value for name, value in info.items() if name not in _NOT_INT_MU}
            info["means_hash"] = self._masks.means_hash
        return info


_NOT_INT_MU = ("beta", "gamma", "specific_scope", "partial_scope", "seed")
_UNSEEN = "unseen"  # no BCP-47 code has six letters, so it is no language's name
_NO_CODE = {_UNSEEN: None}  # what a steerer calls it


# For programs that import this module where neither the hook nor an entry point is at work. Not the harness's decorator:
# it refuses a name that an entry point already holds.
register()
