"""`RunTally`: what one run of the harness asked, in which languages, and what was steered of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lm_eval_clas.harness.prompting import note_prompting, times_built
from lm_eval_clas.neurons.bridge import layers_text

_Recognized = Counter[tuple[str, str]]


@dataclass
class Witness:
    """What was seen of the steering in one language: fields as docs/file-formats.md has them, positions by layer."""

    factors_hash: str
    check: Mapping[str, Any]
    requests: int = 0
    positions: Counter[int] = field(default_factory=Counter)

    def add(self, requests: int, positions: Mapping[int, int]) -> None:
        """Adds what was asked at one time, or elsewhere."""
        self.requests += requests
        for layer, count in positions.items():
            self.positions[layer] += count  # not `update`, which a Counter of zeros forgets when added up

    def info(self) -> dict[str, Any]:
        """As plain JSON."""
        counts = {layer: self.positions[layer] for layer in sorted(self.positions)}
        alike = len(set(counts.values())) == 1
        return {
            "requests": self.requests,
            "positions": next(iter(counts.values())) if alike else {str(layer): count for layer, count in counts.items()},
            "layers": list(counts),
            "factors_hash": self.factors_hash,
            "check": dict(self.check),
        }


class RunTally:
    """Counts of one run; those of a run that failed or ended early are not in the next one.

    Attributes:
        recognized: requests by language and how it was recognised.
        untuned: task families and languages without a tuned strength.
        witnesses: what was seen, by language, or by what stands for it in the results file.
    """

    def __init__(self) -> None:
        self.recognized: _Recognized = Counter()
        self.untuned: set[tuple[str, str]] = set()
        self.witnesses: dict[str, Witness] = {}
        note_prompting()
        self._built = times_built()

    def another_run(self) -> bool:
        """Whether tasks have built requests since this was last asked: the harness builds all of a run's before it asks any."""
        before, self._built = self._built, times_built()
        return before != self._built

    def clear(self) -> None:
        """Forgets all counts."""
        self.recognized.clear()
        self.untuned.clear()
        self.witnesses.clear()

    def languages(self) -> dict[str, dict[str, Any]]:
        """The languages seen, with the number of requests and how each was recognised, as plain JSON."""
        found: dict[str, dict[str, Any]] = {}
        for (language, source), count in sorted(self.recognized.items()):
            entry = found.setdefault(language, {"requests": 0, "recognized": {}})
            entry["requests"] += count
            entry["recognized"][source] = count
        return found

    @property
    def state(self) -> tuple[_Recognized, set[tuple[str, str]], dict[str, Witness]]:
        """What was counted by this process."""
        return self.recognized, self.untuned, self.witnesses

    def gathered(self, every: Iterable[tuple[_Recognized, set[tuple[str, str]], dict[str, Witness]]]) -> None:
        """Takes what all processes counted."""
        recognized: _Recognized = Counter()
        untuned: set[tuple[str, str]] = set()
        witnesses: dict[str, Witness] = {}
        for seen, without, found in every:
            recognized += seen
            untuned |= without
            for key, one in found.items():
                witnesses.setdefault(key, Witness(one.factors_hash, one.check)).add(one.requests, one.positions)
        self.recognized, self.untuned, self.witnesses = recognized, untuned, witnesses


def told_in_a_line(info: dict[str, Any]) -> str:
    """What a run steered, from what its results file says of it."""
    if info["method"] == "off":
        return f"nothing was steered ({info.get('why', 'alpha is 0 or method is off')})"
    languages = ", ".join(
        f"{language} {entry['requests']} ({'/'.join(entry['recognized'])})"
        for language, entry in info["languages"].items()
        if language not in info["left_alone"]
    )
    alone = ", ".join(f"{language} ({why})" for language, why in info["left_alone"].items())
    alpha = info["alpha"]
    if alpha == "tuned":
        alpha += f" ({'; '.join(f'{task}: {_alphas(by_language)}' for task, by_language in info['tuned'].items())})"
    sizes = "".join(f"{name} {info[name]}, " for name in ("beta", "gamma") if name in info)
    return (
        f"method {info['method']}, alpha {alpha}, {sizes}layers {layers_text(info['layers'])}, masks {info['masks_hash']}; "
        f"steered requests: {languages or 'none'}; "
        f"left alone: {alone or 'none'}"
    )


def _alphas(settings: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{language} {setting['alpha']:g}" for language, setting in settings.items())
