"""`AskedSteering`: what a user asks of a steered model beside its engine's arguments, checked before anything is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_clas.base.near_names import require_known
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.languages.language_names import require_language
from lm_eval_clas.languages.routing import LanguageRouter
from lm_eval_clas.languages.task_names import PAIRS
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.by_task import require_tuned, tuned_settings
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions, refuse_without_masks

# The arguments of a steered model that decide nothing where a request is not steered.
STEERING = frozenset(inspect.signature(SteeringOptions.parse).parameters) | {"language", "unseen", "pair", "projection"}


class AskedSteering:
    """Masks and options as a user gives them. Loading a model takes minutes; a slip should not.

    Args:
        masks: a mask folder, the name of a shipped one, a Hub repository, or the masks; None for no steering.
        options: those of `SteeringOptions.parse`, as given.
        language, unseen, pair, projection: as `CLASLM` has them.

    Attributes:
        masks: the masks, or None.
        options: as given.
        tuned: whether strengths are those that `clas tune` chose.
        unseen, projection: as given.

    Raises:
        ClasError: one of them is wrong, or they do not go together.
    """

    def __init__(
        self,
        masks: str | Path | MaskSet | None,
        options: Mapping[str, Any],
        *,
        language: str | None,
        unseen: str,
        pair: str,
        projection: str | None,
    ) -> None:
        require_known("unseen", unseen, ("off", "shared"))
        require_known("pair", pair, PAIRS)
        self.masks = masks if isinstance(masks, MaskSet) else MaskSet.load(masks) if masks else None
        self.options = dict(options)
        self.unseen, self.projection = unseen, projection
        self.tuned = self.masks is not None and options["alpha"] == "tuned"
        self._language, self._pair = language, pair
        if self.masks is None:
            refuse_without_masks({**options, "language": language, "unseen": unseen, "pair": pair, "projection": projection})
        elif self.tuned:
            SteeringOptions.parse(self.masks, **self.fixed)
            require_tuned(self.masks, unseen, options["method"])
            tuned_settings(self.masks, options)  # refuses layers that the method cannot act on
        else:
            checked = SteeringOptions.parse(self.masks, **options)
            if unseen == "shared":
                intervention_in(self.masks, checked, None)  # refuses what does not go together

    @property
    def fixed(self) -> dict[str, Any]:
        """The options of what steers whatever was not tuned; with tuned strengths, at alpha 0."""
        return {**self.options, "alpha": 0.0} if self.tuned else self.options

    def changed(self, **options: Any) -> AskedSteering:
        """The same with some options of steering changed, checked again."""
        return AskedSteering(
            self.masks,
            {**self.options, **options},
            language=self._language,
            unseen=self.unseen,
            pair=self._pair,
            projection=self.projection,
        )

    def router(self, asker: str, processes: Processes | None = None) -> LanguageRouter:
        """What tells the language of each request.

        Args:
            asker: the model class, which warnings name.
            processes: as `LanguageRouter` takes them.

        Raises:
            ClasError: the forced language is none, or one that the masks do not have.
        """
        assert self.masks is not None
        forced = self._forced(self.masks)
        return LanguageRouter(self.masks.languages, forced, self._pair, processes, asker)  # type: ignore[arg-type]

    def _forced(self, masks: MaskSet) -> str | None:
        if self._language is None:
            return None
        code = require_language(str(self._language), "language=")
        if self.unseen == "off":
            masks.code_of(code)
        return code
