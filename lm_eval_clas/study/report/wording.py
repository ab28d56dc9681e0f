"""Numbers and names as a reader gets them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.languages.codes import english_name
from lm_eval_clas.neurons.bridge import layers_text
from lm_eval_clas.steering.results_entry import positions_by_layer, seed_of

MINUS = "\u2212"
NONE = "\u2013"  # where there is no number

# No font draws them, and XML, SVG's language, cannot even hold most of them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def number_text(value: float | None, digits: int = 2) -> str:
    """A number with that many digits after the point."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference, with its sign; 0 has none."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def short(value: float) -> str:
    """A number that somebody chose, such as a strength, with no more digits than it needs."""
    return f"{value:g}".replace("-", MINUS)


def probability(value: float | None) -> str:
    """A p-value."""
    if value is None or not math.isfinite(value):
        return NONE
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """A gain's interval, or a dash where it has none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"{signed(low, digits)} to {signed(high, digits)}"


def amount(comparison: Comparison, value: float) -> str:
    """A score or a gain with its unit: `0.84 points`."""
    return f"{number_text(value, comparison.digits)} {comparison.unit}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def named(label: str) -> str:
    """A run's label within a sentence: in quotes if it has a comma, as `random, 3 seeds` has."""
    return f"\u2018{label}\u2019" if "," in label else label


def counted(count: int, one: str, several: str | None = None) -> str:
    """`1 language`, `2 languages`, `no language`."""
    return f"{count or 'no'} {one if count < 2 else several or one + 's'}"


def layers(numbers: Sequence[int]) -> str:
    """`13-15` for a run of layers, else all of them."""
    return layers_text(numbers).replace("-", "\u2013") or "none"


def language_text(code: str) -> str:
    """`Hindi (hi)`, or the code alone if it is no language's."""
    name = english_name(code)
    return code if name == code else f"{name} ({code})"


def language_list(codes: Sequence[str]) -> str:
    """The English names of languages."""
    return listed([english_name(code) for code in codes])


def drawable(text: str, longest: int = 28) -> str:
    """A text as a picture can hold it: no control characters, not too long."""
    text = _CONTROL.sub("\ufffd", text)
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def steering_line(steering: Mapping[str, Any]) -> str:
    """One line on what a run steered, from `config.clas`; a value of another type than ours is shown as it is."""
    if not steering:
        return "not steered (no hf-clas)"
    if steering.get("method") == "off":
        return f"not steered ({steering.get('why', 'method off, or alpha 0')})"
    parts = []
    for key in ("method", "alpha", "beta", "gamma", "layers", "specific", "specific_scope", "partial_scope", "seed", "anchor"):
        if (value := steering.get(key)) is None or (key.endswith("_scope") and value == "all"):
            continue
        if key == "specific" and value == "counts":
            continue
        if key == "seed" and seed_of(steering) is None:
            continue
        if key == "layers" and isinstance(value, list) and all(isinstance(one, int) for one in value):
            value = layers(value)
        elif isinstance(value, Mapping):
            value = ", ".join(f"{one} {strength}" for one, strength in value.items())
        elif key == "alpha" and isinstance(value, (int, float)):
            value = f"{short(value)}, fixed"
        elif isinstance(value, float):
            value = short(value)
        parts.append(f"{key.replace('_', ' ')} {value}")
    return "; ".join(parts) or "not told"


def recognition(steering: Mapping[str, Any], code: str) -> str:
    """How a run's requests in a language were recognised, from `config.clas`; empty where it does not tell."""
    by_language = steering.get("languages")
    entry = by_language.get(code) if isinstance(by_language, Mapping) else None
    sources = entry.get("recognized") if isinstance(entry, Mapping) else None
    if not isinstance(sources, Mapping) or not sources:
        return ""
    names = {"doc": "the documents\u2019 language field", "forced": "the option language=", "task name": "the task\u2019s name"}
    names |= {"detected": "detection on the text"}
    return listed([f"{names.get(str(source), source)} ({count} requests)" for source, count in sources.items()])


def witnessed(steering: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Steered requests and positions by language, from the witness of a results file; empty where it does not tell.

    Positions are those of the layer that scaled the most. Task families that were tuned are taken together.
    """
    found: dict[str, tuple[int, int]] = {}
    for key, seen in steering.get("witness", {}).items():
        code = key.partition(" in ")[0]
        requests, positions = found.get(code, (0, 0))
        most = max(positions_by_layer(seen).values(), default=0)
        found[code] = (requests + seen.get("requests", 0), positions + most)
    return found
