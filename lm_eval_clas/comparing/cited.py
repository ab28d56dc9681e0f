"""The figures of the CLAS paper that are known, as rows to print beside ours. They are cited, and not measured here."""

from __future__ import annotations

from lm_eval_clas.comparing.rows import Row

_SUMMARY = "a third-party summary of arXiv 2601.16390"

# By a part of the family's name: the metric, the number of languages, what the abstract says, and the gains in points.
_FIGURES = {
    "xnli": ("accuracy", 15, "+2.3 % accuracy", {"Llama 3.1 8B": 1.93, "Qwen 2.5 7B": 0.45}),
    "xquad": ("F1", 12, "+3.4 % F1", {"Llama 3.1 8B": 0.94, "Qwen 2.5 7B": 1.10}),
}


def cited_rows(family: str) -> tuple[list[Row], list[str]]:
    """The paper's average gains for a family of tasks, in points, and what to say about them; nothing for other families."""
    for name, (metric, languages, abstract, gains) in _FIGURES.items():
        if name in family:
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
    return [], [f"--cited: the paper has no figures for {family}."]
