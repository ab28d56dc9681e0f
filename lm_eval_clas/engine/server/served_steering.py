"""What a server steers by: masks and options as `clas serve` got them, handed to vLLM's processes by the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.refusals import refuse_method
from lm_eval_clas.engine.row_tables import RowTables, steered_row
from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.detection import Detector
from lm_eval_clas.languages.language_names import did_you_mean_language, parse_language
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.language_factors import LanguageFactors

VARIABLE = "LM_EVAL_CLAS_SERVED"
DETECT = "detect"


@dataclass(frozen=True)
class ServedSteering:
    """Masks and options of a server.

    Attributes:
        masks: as `MaskSet.load` takes them.
        options: those of `SteeringOptions.parse`.
        language: of requests that name none: a code, `detect`, or None for no steering.
        rows: the names of the rows that its engine was started with; None before that.
    """

    masks: str
    options: dict[str, Any]
    language: str | None = None
    rows: Sequence[str] | None = None

    @classmethod
    def from_environment(cls) -> ServedSteering:
        """As `clas serve` put it there."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def to_environment(self) -> None:
        """For vLLM's processes, which inherit it."""
        os.environ[VARIABLE] = json.dumps({**asdict(self), "rows": self.tables.rows})

    @cached_property
    def factors(self) -> LanguageFactors:
        """Factors by language.

        Raises:
            ClasError: masks or options are wrong.
        """
        if self.options.get("alpha") == "tuned":
            raise ClasError("A server knows no tasks, and tuned strengths are by task; give --alpha a number, or a .json file.")
        refuse_method(str(self.options.get("method")), "choose another method")
        return LanguageFactors(MaskSet.load(self.masks), **self.options)

    @cached_property
    def tables(self) -> RowTables:
        """A row for each language in which anything is changed.

        Raises:
            ClasError: there is none, or masks or strengths are others than when the server was started.
        """
        tables = RowTables.of_languages((language, self.factors, language) for language in self.factors.masks.languages)
        if tables is None:
            raise ClasError("Nothing would be steered; give --alpha another number than 0, or start vLLM alone: vllm serve.")
        if self.rows is not None and list(tables.rows) != list(self.rows):
            raise ClasError(
                f"The masks in '{self.masks}', or their strengths, are others than when this server was started, so it cannot "
                "steer; start it again."
            )
        return tables

    def language_of(self, named: str | None, text: str) -> str | None:
        """The masks' language that a request is steered for; None for one that is not steered.

        Args:
            named: what the request names: a language, `detect`, or nothing.
            text: of the prompt, to detect it on.

        Raises:
            ClasError: it names no language, or one that the masks do not have.
        """
        asked = named or self.language
        if asked is None:
            return None
        languages = self.factors.masks.languages
        if asked == DETECT:
            if not text.strip():
                if named is None:
                    return None  # such as a prompt of tokens, whose sender knows nothing of a server's default
                raise ClasError("A language is detected on the text of a prompt, and this prompt has none; name the language.")
            found = self._detector.detect(text)
            known = found if found == UNDETERMINED else as_known(found, languages)
            return known if known in languages else None
        code = parse_language(asked)
        if code is None:
            meant = did_you_mean_language(asked[:80])
            raise ClasError(f"'{asked[:80]}' is not a language{meant}; give a code or a name, e.g. hi or Hindi, or 'detect'.")
        known = as_known(code, languages)
        self.factors.masks.index(known)
        return known

    def row_of(self, language: str | None) -> str | None:
        """The row of a language; None where nothing is changed."""
        return None if language is None else steered_row(self.factors, language, language)

    @cached_property
    def _detector(self) -> Detector:
        return Detector(self.factors.masks.languages)
