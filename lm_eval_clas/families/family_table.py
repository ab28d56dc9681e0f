"""The table of families: on the screen's and on the documentation's page, and what is worse in a new one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields

from lm_eval_clas.families.family_trial import FAILED, WRONG, YES, FamilyTrial
from lm_eval_clas.families.tried_in_vllm import BREAKS, NOT_THERE, NOT_TRIED, WORKS

HEADINGS = ("family", "MLP", "attention", "steered = merged", "resumable", "prefixes shared", "(IA)3", "vLLM")


def decoder_families() -> list[str]:
    """Every family that the installed transformers has a causal language model for, in its order."""
    from transformers.models.auto import modeling_auto

    return sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def totals(trials: Sequence[FamilyTrial]) -> str:
    """How many families there are of each kind, in one sentence."""
    built = [one for one in trials if one.built]
    structure = sum(one.mlp.startswith("`") for one in built)
    pattern = sum(one.mlp.startswith("by pattern") for one in built)
    attention = sum(one.attn.startswith("`") for one in built)
    counts = {name: sum(getattr(one, name) == YES for one in built) for name in ("same", "resumable", "prefixes", "ia3")}
    refused = sum(one.mlp.startswith("refused") for one in built)
    wrong = sum(WRONG in one.cells for one in trials)
    vllm = {name: sum(one.vllm.startswith(name) for one in built) for name in (WORKS, "refused", NOT_THERE, BREAKS, NOT_TRIED)}
    failed = sum(any(cell.startswith(FAILED) for cell in one.cells) for one in trials)
    return (
        f"Of {len(trials)} families, {len(built)} were built tiny. MLPs: {structure} found by structure, {pattern} by pattern, "
        f"{refused} refused; attention: {attention} found. Steered = merged: {counts['same']}; "
        f"resumable: {counts['resumable']}; prefixes shared: {counts['prefixes']}; (IA)3: {counts['ia3']}; "
        f"vLLM: {', '.join(f'{count} {name}' for name, count in vllm.items())}; "
        f"failed: {failed}; silently wrong: {wrong}."
    )


def family_rows(trials: Sequence[FamilyTrial]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"| {' | '.join('---' for _ in HEADINGS)} |"
    for one in trials:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in one.cells)} |"


def read_family_page(text: str) -> dict[str, FamilyTrial]:
    """The rows of a page that `family_rows` wrote, by family."""
    rows = (line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| "))
    trials = [FamilyTrial(*row) for row in rows if len(row) == len(fields(FamilyTrial)) and row[0] not in ("family", "---")]
    return {one.family: one for one in trials}


def worse(before: FamilyTrial, now: FamilyTrial) -> list[str]:
    """What was possible before and is not now, in as many layers and modules, or would be silently wrong."""
    found = []
    for heading, old, new in zip(HEADINGS[1:], before.cells[1:], now.cells[1:], strict=True):
        if new == WRONG or _worth(new) < _worth(old) or (_worth(new) == _worth(old) and _has_less(old, new)):
            found.append(f"{now.family}, {heading}: {old} before, {new} now")
    return found


def _worth(cell: str) -> int:
    if cell == WRONG:
        return -1
    if cell.startswith(("refused", "not built", "no", "-", FAILED, BREAKS)):
        return 0
    return 1 if cell.startswith("by pattern") else 2


def _has_less(old: str, new: str) -> bool:
    """Whether a cell lacks one of another's modules, or has them in fewer layers."""
    return _worth(old) > 0 and (not _modules(old) <= _modules(new) or _layers(new) < _layers(old))


def _modules(cell: str) -> set[str]:
    return set(re.findall("`([^`]+)`", cell))


def _layers(cell: str) -> float:
    """The share of the layers that have any; where nothing is said of them, all."""
    some = re.search(r"\(in (\d+) of (\d+) layers\)", cell)
    return int(some[1]) / int(some[2]) if some else 1.0
