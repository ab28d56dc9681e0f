"""What tables call a run that nobody named: its method and strength, and what else tells it from the others."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval_clas.comparing.runs import Run
from lm_eval_clas.neurons.bridge import layers_text

# What may tell two runs of one method and strength apart, in this order, and what a label calls it.
_DETAILS = {
    "beta": "beta",
    "gamma": "gamma",
    "layers": "layers",
    "projection": "modules",
    "site": "site",
    "specific": "specific by",
    "specific_scope": "specific",
    "partial_scope": "partial",
    "unseen": "unseen",
    "pair": "pair",
    "forced_language": "language",
    "anchor": "anchor",
    "masks_hash": "masks",
    "means_hash": "means",
    "residual_hash": "residual means",
}


def with_labels(runs: Sequence[Run]) -> list[Run]:
    """The runs, those without a name with one that no other run has."""
    several = len({run.model for run in runs}) > 1
    labels = [run.label if run.named else _plain(run, several) for run in runs]
    steps: list[Callable[[Run, Sequence[Run]], str]] = [_adapter, _steering_details, _shots, _folder]
    for step in steps:
        count = Counter(labels)
        alike = {label: [run for run, other in zip(runs, labels, strict=True) if other == label] for label in count}
        labels = [
            label if run.named or count[label] == 1 else f"{label}{step(run, alike[label])}"
            for run, label in zip(runs, labels, strict=True)
        ]
    seen: Counter[str] = Counter()
    numbered = []
    for run, label in zip(runs, labels, strict=True):
        seen[label] += 1
        numbered.append(label if run.named or seen[label] == 1 else f"{label} ({seen[label]})")
    return [replace(run, label=label) for run, label in zip(runs, numbered, strict=True)]


def seeds_label(labels: Sequence[str]) -> str:
    """What several seeds of one control are called together: their labels without the seed, and how many they are."""
    bare = set(labels)
    if len(bare) > 1:
        bare = {re.sub(r"[\s,_-]*(seed[\s=_-]*)?\d+$", "", label) for label in labels}
    name = bare.pop() if len(bare) == 1 else ""
    return f"{name or 'random'}, {len(labels)} seeds"


def _plain(run: Run, several_models: bool) -> str:
    """`hf`, `off`, `clas alpha 1`, `random alpha 1, seed 0`; with the model's name in front where there are several models."""
    name = os.path.basename(run.model.rstrip("/"))
    if not run.steering:
        return name if several_models else run.source
    label = "off" if run.unsteered else f"{run.method}{_strength(run.steering.get('alpha'))}"
    if run.seed is not None:
        label += f", seed {run.seed}"
    return f"{name} {label}" if several_models else label


def _strength(alpha: Any) -> str:
    if alpha is None:
        return ""
    if isinstance(alpha, Mapping):
        return " alpha by language"
    return f" alpha {alpha:g}" if isinstance(alpha, (int, float)) else f" alpha {alpha}"


def _steering_details(run: Run, alike: Sequence[Run]) -> str:
    """Of the details in which runs of one label differ, this one's, as far as it tells of them."""
    differ = [key for key in _DETAILS if len({str(other.steering.get(key)) for other in alike}) > 1]
    own = {key: run.steering[key] for key in differ if run.steering.get(key) is not None}
    return "".join(f", {_DETAILS[key]} {_short(key, value)}" for key, value in own.items())


def _adapter(run: Run, alike: Sequence[Run]) -> str:
    differ = [name for name in run.adapter if len({other.adapter.get(name) for other in alike}) > 1]
    return "".join(f", {name} {os.path.basename(run.adapter[name].rstrip('/'))}" for name in differ)


def _shots(run: Run, alike: Sequence[Run]) -> str:
    return f", {'/'.join(_of_shots(run))} shots" if len({_of_shots(other) for other in alike}) > 1 else ""


def _of_shots(run: Run) -> tuple[str, ...]:
    return tuple(sorted({str(task.shots) for task in run.tasks.values()}))


def _folder(run: Run, alike: Sequence[Run]) -> str:
    """Where the file is, without the parts that all of them share; the last folder is only the model's name."""
    parts = [other.files[0].parent.parts for other in alike if other.files]
    if len(set(parts)) < 2 or not run.files:
        return ""
    own = [part for part in run.files[0].parent.parts if not all(part in other for other in parts)]
    return f" [{'/'.join(own)}]" if own else ""


def _short(key: str, value: Any) -> str:
    if isinstance(value, list):
        return layers_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:8] if key.endswith("_hash") else str(value)
