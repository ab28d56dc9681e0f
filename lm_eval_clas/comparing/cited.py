"""The figures of the CLAS paper that are known, as rows to print beside ours. They are cited, and not measured here."""

from __future__ import annotations

from lm_eval_clas.comparing.rows import Row

_SUMMARY = "a third-party summary of arXiv 2601.16390"

# By a part of the family's name and by metric: its name in words, the number of languages, what the abstract says, and the
# gains in points.
_ACCURACY = ("accuracy", 15, "+2.3 % accuracy", {"Llama 3.1 8B": 1.93, "Qwen 2.5 7B": 0.45})
_F1 = ("F1", 12, "+3.4 % F1", {"Llama 3.1 8B": 0.94, "Qwen 2.5 7B": 1.10})
_FIGURES = {"xnli": {"acc": _ACCURACY}, "xquad": {"f1": _F1, "f1_lang": _F1}}


def cited_rows(family: str, measure: str) -> tuple[list[Row], list[str]]:
    """The paper's average gains for a family of tasks, in points, and what to say about them.

    Nothing for other families, and for measures that the paper does not have: its figures beside others would be compared.
    """
    for name, by_measure in _FIGURES.items():
        if name in family and measure in by_measure:
            metric, languages, abstract, gains = by_measure[measure]
            rows = [
                Row(
                    label=f"CLAS paper {model}",
                    kind="cited",
                    cells={},
                    gain=gain,
                    source=f"{_SUMMARY}: {metric}, {languages} languages",
                )
                for model, gain in gains.items()
            ]
            note = (
                f"What is cited was not measured here: the average gain over the unmodified model, {metric} in points, "
                f"{languages} languages, from {_SUMMARY}; prompts and items are other ones. The abstract claims {abstract}."
            )
            return rows, [note]
    return [], [f"--cited: the paper has no figures for {measure} of {family}."]
