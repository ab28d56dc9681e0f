"""One results file of the harness: its types are checked, and older releases are brought to the form of the newest.

Releases before 0.4 have one number for a metric (`acc`), and neither counts nor hashes. From 0.4.0 on a metric has a filter
(`acc,none`); 0.4.3 added counts of items, hashes, and the date in the file's name. Samples are those of `logged_samples.py`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import first_fault, read_json, visible_texts

# The moment of writing, at the end of the name of a results file and of its samples files.
_DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")
_NO_METRICS = ("alias", "sample_len", "name")  # of a task's results: no metric


class _Tuned(TypedDict, total=False):
    """What is read of one tuned strength."""

    alpha: float
    beta: float
    gamma: float
    layers: list[int]


class _Recognised(TypedDict, total=False):
    """What is read of a language's requests."""

    requests: int
    recognized: dict[str, int]
    from_cache: int
    steered_as: str


class _OfWitness(TypedDict, total=False):
    """What is read of what the witness saw in a language."""

    requests: int
    positions: int | dict[str, int]
    layers: list[int]
    factors_hash: str


class _Steering(TypedDict, total=False):
    """What is read of `config.clas`."""

    method: str
    scoring: str
    seed: int
    anchor: str | None
    masks_hash: str
    languages: dict[str, _Recognised]
    witness: dict[str, _OfWitness]
    left_alone: dict[str, str]
    unlike_tuning: dict[str, str]
    alpha: float | str | dict[str, float] | None
    beta: float
    gamma: float
    layers: list[int]
    projection: str
    pair: str
    tuned: dict[str, dict[str, _Tuned]]


class _Config(TypedDict, total=False):
    """What is read of `config`."""

    clas: _Steering | None
    model: str | None
    model_args: dict[str, Any] | str | None
    model_dtype: str | None
    batch_size: int | str | None
    num_fewshot: int | None


# What is read of a results file; the harness writes more.
_Content = TypedDict(
    "_Content",
    {
        "results": dict[str, dict[str, Any]],
        "config": _Config,
        "group_subtasks": dict[str, list[str]] | None,
        "n-samples": dict[str, dict[str, int | None]] | None,
        "versions": dict[str, int | float | str | None] | None,
        "task_hashes": dict[str, str | None] | None,
        "n-shot": dict[str, int | None] | None,
        "higher_is_better": dict[str, dict[str, bool | None] | None] | None,
        "model_name": str | None,
        "model_source": str | None,
        "chat_template_sha": str | None,
        "system_instruction_sha": str | None,
        "fewshot_as_multiturn": bool | None,
        "lm_eval_version": str | None,
        "transformers_version": str | None,
    },
    total=False,
)
_CONTENT = TypeAdapter(_Content)
_STEERING = TypeAdapter(_Steering)


def results_content(path: Path) -> dict[str, Any] | None:
    """What one results file says, with texts that can be shown; None if it is JSON of another kind.

    Raises:
        ClasError: it cannot be read, or a field that is read is of another type than the harness writes.
    """
    try:
        data = visible_texts(read_json(path))
        if not isinstance(data, dict) or not isinstance(data.get("results"), dict) or not isinstance(data.get("config"), dict):
            return None
        _CONTENT.validate_python(data, strict=True)
    except (OSError, ValueError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error
        raise ClasError(f"'{path}' is damaged or cannot be read ({why}); leave it out, or run lm_eval again.") from error
    if not any("," in key for one in data["results"].values() for key in one):
        return _as_with_filters(data)
    return data


def checked_steering(told: dict[str, Any], where: str) -> dict[str, Any]:
    """`config.clas` as it was kept elsewhere, such as in a table.

    Raises:
        ClasError: a field that is read is of another type than `hf-clas` writes; `where` begins the sentence.
    """
    try:
        _STEERING.validate_python(told, strict=True)
    except ValidationError as error:
        raise ClasError(
            f"{where} tells of its steering what no run does ({first_fault(error)}); make the table again."
        ) from error
    return told


def metrics_of(scores: dict[str, Any]) -> dict[str, float]:
    """The metrics of one task by name and filter: `acc,none`, but not `acc_stderr,none`, whose value may also be text."""
    return {
        key: float(value)
        for key, value in scores.items()
        if "," in key and "_stderr," not in key and _is_number(value) and math.isfinite(value)
    }


def date_of(path: Path) -> str:
    """The moment of writing in a results file's name; empty before 0.4.3, or where somebody renamed it."""
    found = _DATE.search(path.stem)
    return found[1] if found else ""


def model_arguments(data: dict[str, Any]) -> dict[str, Any]:
    """`--model_args`, which newer releases keep as a mapping and older ones as they were given."""
    arguments = data["config"].get("model_args") or {}
    return arguments if isinstance(arguments, dict) else dict(one.partition("=")[::2] for one in arguments.split(","))


def _as_with_filters(data: dict[str, Any]) -> dict[str, Any]:
    """The file of a release before 0.4, whose metrics had no filters, as later ones have it."""
    results = {
        task: {f"{key},none": one for key, one in scores.items() if key not in _NO_METRICS and not key.endswith("_stderr")}
        for task, scores in data["results"].items()
    }
    shots = dict.fromkeys(results, data["config"].get("num_fewshot"))
    return {**data, "results": results, "n-shot": data.get("n-shot") or shots}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
