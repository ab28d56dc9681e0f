"""`RowSweep`: every setting and language a row, so that all strengths of a task share one load and one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.engine.refusals import refuse_method
from lm_eval_clas.engine.row_tables import RowTables, steered_row
from lm_eval_clas.engine.rowed_vllm import RowedVLLM, with_row
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Setting
from lm_eval_clas.steering.language_factors import LanguageFactors

# Documents between two entries of the journal. With nine settings, that is some hundreds of requests: enough to keep vLLM busy.
_AT_ONCE = 64


def load_rows(
    pretrained: str, arguments: dict[str, Any], masks: MaskSet, settings: Sequence[Setting], method: str = CLAS
) -> RowedVLLM:
    """The model inside vLLM, with a row for each setting and language.

    Args:
        pretrained: the model.
        arguments: of the harness's `vllm`.
        masks: masks of the model.
        settings: all of them.
        method: of steering.

    Raises:
        ClasError: the method is a map, the masks do not fit the model, an argument does not go with steering, or
            vLLM cannot load it.
    """
    refuse_method(method)
    tables = RowTables.of_languages(
        (_label(number, language), steerer, language)
        for number, steerer in enumerate(_steerers(masks, settings, method))
        for language in masks.languages
    )
    if tables is None:
        raise ClasError("None of the settings steers anything in any language; give other --alphas.")
    require_fit(masks, tables.place, pretrained, arguments.get("revision"), bool(arguments.get("trust_remote_code")))
    site, pattern = masks.config.site, masks.config.projection
    try:
        return RowedVLLM(pretrained, tables=tables, site=site, projection=pattern, **arguments)
    except ClasError:
        raise
    except Exception as error:  # vLLM and the harness raise every kind for a wrong argument or too little memory
        reason = first_line(error)
        raise ClasError(f"Cannot load the model '{pretrained}' in vLLM: {reason}") from error


def _steerers(masks: MaskSet, settings: Sequence[Setting], method: str) -> list[LanguageFactors]:
    return [LanguageFactors(masks, method=method, **setting.options()) for setting in settings]


def _label(number: int, language: str) -> str:
    return f"{language} in setting {number}"


class RowSweep(Sweep):
    """One model inside vLLM under many settings; as `Sweep`, but for what it takes: the model of `load_rows`."""

    def _steer_with(self, settings: Sequence[Setting], resume: bool) -> None:
        self._rowed: list[LanguageFactors] = _steerers(self._masks, settings, self._method)

    def _batches(self, requests: Sequence[Instance], languages: Sequence[str | None]) -> Iterator[list[int]]:
        """Whole documents, of any languages; refused before the first of them runs where a setting would change nothing."""
        for number, steerer in enumerate(self._rowed):
            for language in sorted({one for one in languages if one is not None and steerer.changes(one)}):
                if not self._lm.changes[self._name(number, steerer, language)]:
                    alpha = steerer.steering.strength(language)
                    raise ClasError(
                        f"Alpha {alpha:g} steers '{language}' so weakly that nothing changes in {self.computes_in}; leave it "
                        "out, or load the model with dtype=float32."
                    )
        documents: dict[Any, list[int]] = {}
        for position, request in enumerate(requests):
            documents.setdefault(request.doc_id, []).append(position)
        each = list(documents.values())
        for start in range(0, len(each), _AT_ONCE):
            yield [position for positions in each[start : start + _AT_ONCE] for position in positions]

    @staticmethod
    def _name(number: int, steerer: LanguageFactors, language: str | None) -> str | None:
        """The row of a setting and language; None where nothing is changed."""
        return None if language is None else steered_row(steerer, language, _label(number, language))

    def _run_all(self, kind: str, batch: list[Instance], languages: Sequence[str | None]) -> list[list[Any]]:
        """All settings at once; what no setting steers runs once."""
        places: dict[tuple[int, str | None], int] = {}
        asked: list[Instance] = []
        answered: list[int] = []
        for number, steerer in enumerate(self._rowed):
            for at, (request, language) in enumerate(zip(batch, languages, strict=True)):
                name = self._name(number, steerer, language)
                if (at, name) not in places:
                    places[at, name] = len(asked)
                    asked.append(with_row(request, name))
                answered.append(places[at, name])
        self._lm.take_counts()
        answers = getattr(self._lm, kind)(asked, disable_tqdm=True)
        counts = self._lm.take_counts()
        for name in {name for _, name in places if name is not None}:
            if not all(counts.get(name, {}).get(layer) for layer in self._lm.changes[name]):
                raise ClasError(
                    f"Requests of {name.partition('/')[2]} were to be steered, but no position was, so there is no score; "
                    "something keeps vLLM from running what steers."
                )
        found = [answers[place] for place in answered]
        return [found[start : start + len(batch)] for start in range(0, len(found), len(batch))]
