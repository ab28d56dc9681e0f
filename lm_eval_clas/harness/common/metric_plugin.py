"""`f1_lang` as a metric of the harness, for tasks of one's own: `metric: f1_lang` in a task's `metric_list`.

Versions of the harness that have the entry-point group `lm_eval.metrics` import this module when a task names the metric; for
others, a program imports it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.api.registry import aggregation_registry, higher_is_better_registry, metric_agg_registry, metric_registry

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.languages.language_names import require_language
from lm_eval_clas.texts.metrics import f1_lang

NAME = "f1_lang"


def f1_of_answers(references: Sequence[str], predictions: Sequence[str], language: str | None = None) -> float:
    """The mean of `f1_lang` over answers, as the harness asks for it: one at a time.

    Args:
        references: a gold answer for each prediction.
        predictions: what the model wrote.
        language: of both, as it stands beside the metric in the task's file.

    Raises:
        ClasError: there is no language, or it is none.
    """
    if language is None:
        raise ClasError(f"The metric {NAME} needs a language; write 'language: hi', say, beside it in the task's metric_list.")
    code = require_language(language, f"metric {NAME}: ")
    scores = [f1_lang(prediction, [gold], code) for prediction, gold in zip(predictions, references, strict=True)]
    return sum(scores) / len(scores)


# Not the harness's decorator: it refuses a name that an entry point already holds.
for registry, target in (
    (metric_registry, f1_of_answers),
    (higher_is_better_registry, True),
    (metric_agg_registry, aggregation_registry.get("mean")),
):
    if NAME not in registry:
        registry.register(NAME, target=target)
