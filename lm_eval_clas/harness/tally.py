"""`RunTally`: what one run of the harness asked, in which languages, and what was steered of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lm_eval_clas.harness.prompting import note_prompting, times_built
from lm_eval_clas.neurons.bridge import layers_text
from lm_eval_clas.steering.results_entry import positions_told

_Recognized = Counter[tuple[str, str]]
_Alone = dict[tuple[str, str], str]


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
        return {
            "requests": self.requests,
            "positions": positions_told(counts),
            "layers": list(counts),
            "factors_hash": self.factors_hash,
            "check": dict(self.check),
        }


class RunTally:
    """Counts of one run; those of a run that failed or ended early are not in the next one.

    Attributes:
        recognized: requests by language and how it was recognised.
        cached: requests that were answered from the cache, by language.
        alone: why no tuned strength steers, by task family and language.
        witnesses: what was seen, by language, or by what stands for it in the results file.
    """

    def __init__(self) -> None:
        self.recognized: _Recognized = Counter()
        self.cached: Counter[str] = Counter()
        self.alone: _Alone = {}
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
        self.cached.clear()
        self.alone.clear()
        self.witnesses.clear()

    def languages(self) -> dict[str, dict[str, Any]]:
        """The languages seen, with the number of requests and how each was recognised, as plain JSON."""
        found: dict[str, dict[str, Any]] = {}
        for (language, source), count in sorted(self.recognized.items()):
            entry = found.setdefault(language, {"requests": 0, "recognized": {}})
            if self.cached[language]:
                entry["from_cache"] = self.cached[language]
            entry["requests"] += count
            entry["recognized"][source] = count
        return found

    @property
    def state(self) -> tuple[_Recognized, Counter[str], _Alone, dict[str, Witness]]:
        """What was counted by this process."""
        return self.recognized, self.cached, self.alone, self.witnesses

    def gathered(self, every: Iterable[tuple[_Recognized, Counter[str], _Alone, dict[str, Witness]]]) -> None:
        """Takes what all processes counted."""
        recognized: _Recognized = Counter()
        cached: Counter[str] = Counter()
        alone: _Alone = {}
        witnesses: dict[str, Witness] = {}
        for seen, answered, left, found in every:
            recognized += seen
            cached += answered
            alone |= left
            for key, one in found.items():
                witnesses.setdefault(key, Witness(one.factors_hash, one.check)).add(one.requests, one.positions)
        self.recognized, self.cached, self.alone, self.witnesses = recognized, cached, alone, witnesses


def told_in_a_line(info: dict[str, Any]) -> str:
    """What a run steered, from what its results file says of it."""
    if info["method"] == "off":
        return f"nothing was steered ({info.get('why', 'alpha is 0 or method is off')})"
    sources: dict[str, dict[str, None]] = {}  # by the language that counts
    for language, entry in info["languages"].items():
        sources.setdefault(entry.get("steered_as", language), {}).update(dict.fromkeys(entry["recognized"]))
    by_steering = []
    for key, seen in info["witness"].items():  # what was asked to be steered is not always
        known = sources.get(key.partition(" in ")[0])
        by_steering.append(f"{key} {seen['requests']}" + (f" ({'/'.join(known)})" if known else ""))
    alone = ", ".join(f"{language} ({why})" for language, why in info["left_alone"].items())
    cached, requests = (sum(one.get(name, 0) for one in info["languages"].values()) for name in ("from_cache", "requests"))
    told = f"; answered from the cache, without the model: {cached} of {requests} requests" if cached else ""
    alpha = info["alpha"]
    if alpha == "tuned":
        alpha += f" ({'; '.join(f'{task}: {_alphas(by_language)}' for task, by_language in info['tuned'].items())})"
    sizes = "".join(f"{name} {info[name]}, " for name in ("beta", "gamma") if name in info)
    return (
        f"method {info['method']}, alpha {alpha}, {sizes}layers {layers_text(info['layers'])}, masks {info['masks_hash']}; "
        f"steered requests: {', '.join(by_steering) or 'none'}; "
        f"left alone: {alone or 'none'}{told}"
    )


def _alphas(settings: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{language} {setting['alpha']:g}" for language, setting in settings.items())
