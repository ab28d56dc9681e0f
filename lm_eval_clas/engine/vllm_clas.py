"""`VLLMCLAS`: the harness's `vllm`, steered by the language of each request, with requests of all languages in one batch."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.engine.refusals import refuse_method
from lm_eval_clas.engine.row_tables import RowTables, steered_row
from lm_eval_clas.engine.rowed_vllm import RowedVLLM, engine_takers, with_row
from lm_eval_clas.harness.common.argument_names import named_in, refuse_slips
from lm_eval_clas.harness.common.asked_steering import AskedSteering
from lm_eval_clas.harness.common.plain_end import end_plainly
from lm_eval_clas.harness.common.steered_lm import UNSEEN, AnswerAll, RequestGroup, Response, SteeredLM, code_of
from lm_eval_clas.harness.plugin import register
from lm_eval_clas.harness.tally import Witness
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.by_task import TunedSteering
from lm_eval_clas.steering.language_factors import LanguageFactors

# Requests between two writes into the database of --use_cache: enough to keep vLLM busy, and not too many to run again.
_AT_ONCE = 4096


class VLLMCLAS(SteeredLM[LanguageFactors], RowedVLLM):
    """The harness's `vllm` with Cross-Lingual Activation Steering (arXiv 2601.16390).

    Each request takes the row of its language with it, so that requests of all languages run in one continuous batch. The
    anchor's requests run unsteered among them. Where there is nothing to steer (no masks, `alpha=0`, `method=off`), the engine
    is that of the harness's `vllm`, and so are the answers, except where a task says nothing of sampling: those are greedy, as
    with `hf`, and the harness's `vllm` samples.

    Args:
        pretrained: as for `vllm`, and so are all arguments not named here.
        masks, alpha, beta, gamma, layers, specific_scope, partial_scope, language, pair, unseen: as for `hf-clas`.
        seed: of `method=random`, and vLLM's own.
        method: as for `hf-clas`, but for `incline`, which adds a linear map of the activation and not a vector.
        projection: a pattern of vLLM's module names, for models whose projections are not found by structure.

    Raises:
        ClasError: an option is wrong, the masks do not fit the model, or an argument of vLLM does not go with steering.
    """

    harness_name = "vllm-clas"

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
        seed: int | None = None,
        language: str | None = None,
        unseen: str = "off",
        pair: str = "target",
        projection: str | None = None,
        **kwargs: Any,
    ) -> None:
        end_plainly()
        refuse_slips(self.harness_name, kwargs, named_in(VLLMCLAS, *engine_takers()))
        options = {
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "layers": layers,
            "specific_scope": specific_scope,
            "partial_scope": partial_scope,
            "method": method,
            "seed": 0 if seed is None or not masks else seed,
        }
        kwargs |= {} if seed is None else {"seed": seed}
        refuse_method(method)
        asked = AskedSteering(masks, options, language=language, unseen=unseen, pair=pair, projection=projection)
        self._will_steer(asked)
        if asked.masks is None:
            super().__init__(pretrained, tables=None, **kwargs)
        else:
            revision = kwargs.get("revision")
            tables = tables_of(asked)
            place = tables.place if tables else None
            require_fit(asked.masks, place, str(pretrained), revision, bool(kwargs.get("trust_remote_code")))
            asked.router(self.harness_name)  # refuses a wrong language now
            site, pattern = asked.masks.config.site, projection or asked.masks.config.projection
            super().__init__(pretrained, tables=tables, site=site, projection=pattern, **kwargs)
        self._steer_with(LanguageFactors)

    def steer(self, **options: Any) -> None:
        """Steers by other options from now on, with the engine that runs: tables are exchanged in place.

        Args:
            **options: those of `SteeringOptions.parse` that are to be other than now, such as `alpha=-2`.

        Raises:
            ClasError: an option is wrong, or needs tables that the engine does not have.
        """
        if self._masks is None or self._room is None:
            raise ClasError("This model was started with nothing to steer; start it with masks and an alpha other than 0.")
        asked = self._asked.changed(**options)
        if tables := tables_of(asked):
            self.load(tables)
        self._asked = asked
        self._steer_with(LanguageFactors)

    def _answer_groups(
        self,
        answer: AnswerAll[Response],
        groups: Sequence[RequestGroup[LanguageFactors]],
        answers: dict[int, Response],
        total: int,
        disable_tqdm: bool,
    ) -> None:
        """All groups in one batch, or in pieces of it, each request with the name of its row."""
        for group in groups:
            self._require_effect(group)
        order = sorted(position for group in groups for position in group.positions)
        size = self._at_once(len(order))
        for start in range(0, len(order), size):
            piece = set(order[start : start + size])
            answers.update(self._answer_at_once(answer, [_among(group, piece) for group in groups], disable_tqdm))

    def _unsteered(self, answer: AnswerAll[Response], requests: list[Instance], disable_tqdm: bool) -> list[Response]:
        answers: list[Response] = []
        size = self._at_once(len(requests))
        for start in range(0, max(1, len(requests)), size):
            answers += super()._unsteered(answer, requests[start : start + size], disable_tqdm)
        return answers

    def _at_once(self, count: int) -> int:
        """How many requests vLLM gets at once: with a database, pieces, which are kept in it as they end."""
        return _AT_ONCE if self._answers.keeps else max(1, count)

    def _answer_at_once(
        self, answer: AnswerAll[Response], groups: Sequence[RequestGroup[LanguageFactors]], disable_tqdm: bool
    ) -> dict[int, Response]:
        """Answers by position; they are kept when each has been steered by its row."""
        named: dict[int, Instance] = {}
        for group in groups:
            name = _name(group.steerer, group.language, group.name)
            named.update((at, with_row(one, name)) for at, one in zip(group.positions, group.requests, strict=True))
        order = sorted(named)
        hook, self.cache_hook = self.cache_hook, _Nothing()  # answers are kept below, under their steering
        try:
            self.take_counts()  # of whatever ran before
            given = dict(zip(order, answer([named[at] for at in order], disable_tqdm), strict=True))
            counts = self.take_counts()
        finally:
            self.cache_hook = hook
        for group in groups:
            if (name := _name(group.steerer, group.language, group.name)) is not None and group.requests:
                self._bear_witness(group, name, counts.get(name, {}))
            with self._remembering(group.family, group.language):
                for at, request in zip(group.positions, group.requests, strict=True):
                    self._answers.add_partial(answer.__name__, request.args, given[at])
        return given

    def _effective(self, group: RequestGroup[LanguageFactors], name: str) -> list[int]:
        """The layers that change anything for a group, whose row has that name."""
        layers = group.steerer.steered_layers(code_of(group.language))
        return [layer for layer in layers if layer in self.changes.get(name, ())]

    def _require_effect(self, group: RequestGroup[LanguageFactors]) -> None:
        """Refuses a group that is to be steered so weakly that nothing would change in the model's dtype."""
        name = _name(group.steerer, group.language, group.name)
        if name is not None and group.requests and not self._effective(group, name):
            raise ClasError(
                f"{len(group.requests)} requests in '{group.language}' are to be steered so weakly that nothing changes in "
                f"{self.computes_in}; give a larger alpha, or load the model with dtype=float32."
            )

    def _bear_witness(self, group: RequestGroup[LanguageFactors], name: str, counted: Mapping[int, int]) -> None:
        """Notes what was steered for the requests of a group, all of which were to be."""
        effective = self._effective(group, name)
        if idle := [layer for layer in effective if not counted.get(layer)]:
            raise ClasError(
                f"{len(group.requests)} requests in '{group.language}' were to be steered, but no position was in layers "
                f"{', '.join(map(str, idle))}, so there is no score; something keeps vLLM from running what steers."
            )
        check = {"engine": "vllm", "dtype": self.computes_in, **({"replicas": self.replicas} if self.replicas > 1 else {})}
        digest = group.steerer.factors_hash(code_of(group.language))
        witness = self._tally.witnesses.setdefault(group.name, Witness(digest, check))
        witness.add(len(group.requests), {layer: counted[layer] for layer in effective})


def _among(group: RequestGroup[LanguageFactors], piece: Container[int]) -> RequestGroup[LanguageFactors]:
    """A group with those of its requests alone that are in a piece."""
    kept = [(at, one) for at, one in zip(group.positions, group.requests, strict=True) if at in piece]
    return replace(group, positions=[at for at, _ in kept], requests=[one for _, one in kept])


class _Nothing:
    """In the place of the harness's hook into its database."""

    dbdict = None

    def add_partial(self, *answered: Any) -> None:
        """Keeps nothing."""


def _name(steerer: LanguageFactors, language: str, label: str) -> str | None:
    """The row of a group; None where nothing is changed."""
    return steered_row(steerer, code_of(language), label)


def tables_of(asked: AskedSteering) -> RowTables | None:
    """A row for each language (and task family, with tuned strengths) in which anything is changed; None without one.

    Raises:
        ClasError: the method is a map.
    """
    masks = asked.masks
    assert masks is not None
    refuse_method(asked.options["method"])
    every: list[tuple[str, LanguageFactors, str | None]] = []
    if asked.tuned:
        tuned = TunedSteering(masks, asked.options, LanguageFactors)
        for family, language in ((family, language) for family, languages in tuned.strengths.items() for language in languages):
            if (steerer := tuned.steerer(family, language)) is not None:
                every.append((f"{language} in {family}", steerer, language))
    else:
        steerer = LanguageFactors(masks, **asked.options)
        unseen = [UNSEEN] if asked.unseen == "shared" else []
        every = [(language, steerer, code_of(language)) for language in chain(masks.languages, unseen)]
    return RowTables.of_languages(every)


register()
