"""Logged samples: where they lie beside a results file, and what is read of them.

Since 0.4.3 that is `samples_TASK_DATE.jsonl` with a sample a line. Before, it was `MODELARGUMENTS_TASK.jsonl` with one JSON
list, without hashes, which are made here as later releases make them. The name of the filter came later still.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import parse_json

_HASHES = ("doc_hash", "prompt_hash")


def samples_beside(path: Path, task: str, tasks: Iterable[str], date: str, arguments: str) -> Path | None:
    """The samples of one task, or None.

    Args:
        path: the results file.
        task: its name; `tasks`: all of the results file, whose names may end alike.
        date: in the results file's name; empty for a release before 0.4.3.
        arguments: `--model_args` as they were given.
    """
    names = [f"samples_{task}_{date}.jsonl"] if date else [f"{re.sub('/|=', '__', arguments)}_{task}.jsonl"]
    try:
        if not date:
            longer = [f"_{other}" for other in tasks if other.endswith(f"_{task}")]
            stems = [one.stem for one in path.parent.iterdir() if one.suffix == ".jsonl" and one.stem.endswith(f"_{task}")]
            others = [f"{stem}.jsonl" for stem in stems if not stem.endswith(tuple(longer))]
            names += others if len(others) == 1 else []
        return next((path.parent / name for name in names if Path(name).name == name and (path.parent / name).is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def read_samples(path: Path, metrics: Sequence[str]) -> Any:
    """Samples without their texts: a DataFrame with `filter`, `doc_id`, `doc_hash`, `prompt_hash` and a column for each metric.

    Args:
        path: the file.
        metrics: names with filters, such as `acc,none`; where samples do not name their filter, they come in this order.

    Raises:
        ClasError: the file is damaged.
    """
    import pandas as pd

    names = sorted({key.split(",")[0] for key in metrics})
    try:
        rows = [_row(sample, number, names) for number, sample in enumerate(_samples(path), start=1)]
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    frame = pd.DataFrame(rows, columns=["filter", "doc_id", *_HASHES, *names])
    if frame["filter"].isna().all():
        filters = list(dict.fromkeys(key.partition(",")[2] for key in metrics))
        frame["filter"] = [filters[number] if number < len(filters) else None for number in frame.groupby("doc_id").cumcount()]
    return frame


def read_documents(path: Path) -> dict[int, Any]:
    """What was asked about, by `doc_id`, as the task has it; None where samples were logged without.

    Raises:
        ClasError: the file is damaged.
    """
    try:
        return {sample["doc_id"]: sample.get("doc") for sample in _samples(path)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ClasError:
    return ClasError(f"'{path}' is damaged or cannot be read ({error}); leave it out, or run the task again.")


def _samples(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        first = lines.readline()
        if first.lstrip().startswith(b"["):
            found = parse_json(first + lines.read())
            yield from found
            return
        for number, line in enumerate((first, *lines) if first else (), start=1):
            try:
                yield parse_json(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def _row(sample: Any, number: int, metrics: Sequence[str]) -> dict[str, Any]:
    """What is read of one sample."""
    if not isinstance(sample, dict):
        raise ValueError(f"sample {number}: it is no JSON object")
    if type(sample.get("doc_id")) is not int or not isinstance(sample.get("filter"), str | None):
        raise ValueError(f"sample {number}: it has no number of a document, or no name of a filter")
    if not all(isinstance(sample.get(name), str | None) for name in _HASHES):
        raise ValueError(f"sample {number}: its hashes are no texts")
    scores = {name: sample[name] if isinstance(sample.get(name), int | float) else None for name in metrics}
    return {"filter": sample.get("filter"), "doc_id": sample["doc_id"], **_hashes(sample), **scores}


def _hashes(sample: dict[str, Any]) -> dict[str, str]:
    """The harness's hashes of document and prompt."""
    found = {}
    if (document := sample.get("doc_hash")) is None and "doc" in sample:
        document = _hash(json.dumps(sample["doc"], indent=2, ensure_ascii=False))
    if (prompt := sample.get("prompt_hash")) is None:
        asked = sample.get("arguments")
        first = asked[0] if isinstance(asked, list) and asked else None
        text = first[0] if isinstance(first, list) and first else None
        prompt = _hash(text) if isinstance(text, str) else None
    for name, value in zip(_HASHES, (document, prompt), strict=True):
        found[name] = value or ""
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
