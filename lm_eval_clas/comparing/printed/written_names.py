"""Tasks, metrics and methods as people write them: `XQuAD` and not `clas_xquad`, `F1`, `CLAS`.

What is not known here stays as it was given. Files keep the names of the harness; these are for tables and sentences.
"""

from __future__ import annotations

import re

from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.comparing.task_families import OURS, is_ours
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.steering.results_entry import CONTROLS

_WORDS = {
    "belebele": "Belebele",
    "global": "Global",
    "include": "INCLUDE",
    "lite": "lite",
    "mgsm": "MGSM",
    "mlqa": "MLQA",
    "mmlu": "MMLU",
    "mmmlu": "MMMLU",
    "paws": "PAWS",
    "tydiqa": "TyDi QA",
    "x": "X",
    "xcopa": "XCOPA",
    "xnli": "XNLI",
    "xquad": "XQuAD",
    "xstorycloze": "XStoryCloze",
    "xwinograd": "XWinograd",
}
_OWN_WORDS = {"bench": "CLaS-Bench", "force": "in another language", "gold": "gold answers", "open": "open questions"}
_METRICS = {
    "acc": "accuracy",
    "acc_norm": "normalised accuracy",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "exact match",
    "f1": "F1",
    "f1_lang": "F1",
    "ter": "TER",
}
# Of our own tasks, which have another F1 beside SQuAD's.
_OWN_METRICS = {
    "f1": "SQuAD F1",
    "gold_rank": "rank of the gold answer",
    "in_language": "answers in the asked language",
    "nats_per_byte": "log-likelihood of the gold answer",
    "repetition": "repetition (0 if an answer is empty)",
}
_METHODS = {"lape": "LAPE"} | {name: method.written for name, method in METHODS.items() if method.written}
_UNSTEERED = ("hf", "off")  # labels of runs without steering, where nobody gave them another
UNSTEERED = "unsteered"


def written_family(family: str) -> str:
    """`XQuAD gold answers` for `clas_xquad_gold`; a family with a word that is not known stays as it is."""
    known = _WORDS | (_OWN_WORDS if is_ours(family) else {})
    words = [known.get(word) for word in family.removeprefix(OURS).split("_")]
    return " ".join(map(str, words)) if all(words) else family


def written_metric(key: str, family: str) -> str:
    """`F1` for `f1_lang`, `exact match (strict-match)` with a filter; two metrics of one family have two names."""
    name, _, filtered = key.partition(",")
    known = _METRICS | (_OWN_METRICS if is_ours(family) else {})
    return known.get(name, name.replace("_", " ")) + (f" ({filtered})" if filtered and filtered != "none" else "")


def written_label(row: Row) -> str:
    """A row's label with the method's name as people write it; of a control, what it is: `random masks, 2 seeds`."""
    if row.kind in ("baseline", "unsteered") and row.label in _UNSTEERED:
        return UNSTEERED
    method = str(row.steering.get("method", ""))
    names = _METHODS | ({method: CONTROLS[method]} if method in CONTROLS else {})
    return re.sub(r"(?<![^\s,])[a-z][a-z-]*(?![^\s,])", lambda found: names.get(found[0], found[0]), row.label)


def spoken(comparison: Comparison, row: Row) -> str:
    """A row within a sentence: `CLAS`, `the random masks control`, `the unsteered model`."""
    method = str(row.steering.get("method", ""))
    if method in CONTROLS and sum(one.steering.get("method") == method for one in comparison.rows) == 1:
        return f"the {CONTROLS[method]} control"
    if row.label in _UNSTEERED:
        return f"the {UNSTEERED} model"
    name = written_label(row)
    name = f"\u2018{name}\u2019" if "," in name else name
    return f"the control {name}" if row.kind == "control" else name


def written(comparison: Comparison) -> Comparison:
    """The same comparison with its labels as people write them, in its notes, too. Two that would become one stay."""
    names = {row.label: written_label(row) for row in comparison.rows}
    if len(set(names.values())) < len(names):
        return comparison
    notes = []
    for note in comparison.notes:
        start, colon, rest = note.partition(": ")
        note = f"{names[start]}{colon}{rest}" if start in names else note
        notes.append(re.sub(r"'([^']*)'", lambda found: f"\u2018{names.get(found[1], found[1])}\u2019", note))
    rows = [row.model_copy(update={"label": names[row.label]}) for row in comparison.rows]
    baseline = names.get(comparison.baseline, comparison.baseline)
    return comparison.model_copy(update={"rows": rows, "baseline": baseline, "notes": notes})
