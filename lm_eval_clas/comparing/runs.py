"""Runs of the harness as plain data: what each task gave, and how the model was steered."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import parse_json


@dataclass(frozen=True)
class TaskScores:
    """What one task gave.

    Attributes:
        task: the harness's name.
        metrics: scores as reported, by metric and filter (`acc,none`).
        items: how many were scored, if the file says so.
        version: of the task; `digest`: the harness's hash of items and prompts; `shots`: examples in the prompt.
        higher_is_better: by metric, as far as the file says so.
        samples: the file of logged samples, if there is one.
    """

    task: str
    metrics: dict[str, float]
    items: int | None = None
    version: str = ""
    digest: str = ""
    shots: int | None = None
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    samples: Path | None = None

    @cached_property
    def logged(self) -> Any:
        """The samples without their texts: a DataFrame with `filter`, `doc_id`, `doc_hash`, `prompt_hash` and the metrics.

        Raises:
            ClasError: there are none, or the file is damaged.
        """
        import pandas as pd

        if self.samples is None:
            raise ClasError(f"The run of {self.task} has no samples; run it with --log_samples.")
        names = {key.split(",")[0] for key in self.metrics} | {"filter", "doc_id", "doc_hash", "prompt_hash"}
        rows = []
        try:
            with self.samples.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    rows.append(_sample(line, number, names))
        except (OSError, ValueError) as error:
            raise ClasError(
                f"'{self.samples}' is damaged or cannot be read ({error}); leave it out, or run the task again."
            ) from error
        return pd.DataFrame(rows, columns=sorted(names))

    def of_filter(self, name: str) -> Any:
        """The samples of one filter, by ascending `doc_id`, which is their index. Empty if there are none."""
        found = self.logged[self.logged["filter"].fillna("none") == name]
        return found.drop_duplicates("doc_id", keep="last").set_index("doc_id").sort_index()

    def item_scores(self, key: str) -> Any | None:
        """Each item's score: a float Series by `doc_id`; None if there are no samples or the metric is no mean of them.

        Args:
            key: metric and filter, such as `acc,none`.
        """
        import pandas as pd

        metric, _, name = key.partition(",")
        if self.samples is None or key not in self.metrics:
            return None
        values = pd.to_numeric(self.of_filter(name)[metric], errors="coerce").astype(float)
        reported = self.metrics[key]
        if not len(values) or values.isna().any() or abs(values.mean() - reported) > 1e-6 * max(1.0, abs(reported)):
            return None
        return values


def _sample(line: bytes, number: int, names: set[str]) -> dict[str, Any]:
    """Some fields of one logged sample."""
    try:
        sample = parse_json(line)
        if not isinstance(sample, dict):
            raise ValueError("it is no JSON object")
        if type(sample.get("doc_id")) is not int or not isinstance(sample.get("filter"), str | None):
            raise ValueError("it has no number of a document, or no name of a filter")
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    return {name: sample.get(name) for name in names}


@dataclass(frozen=True)
class Run:
    """One model, evaluated once, whatever number of tasks and of calls of the harness that took.

    Attributes:
        label: what tables call it; `named` if the user gave it.
        model: name or path; `source`: the harness's name of the model class, such as `hf`.
        steering: `config.clas` of the results files, the newest one's but for what is told by language; empty for other models.
        setup: what decides its scores, but for tasks, shots and seed, as a string: random controls that share it are
            seeds of one.
        tasks: by name; groups are left out.
        files: the results files.
        superseded: older files, all of whose tasks were run again in the same setup.
    """

    label: str
    model: str
    source: str
    steering: dict[str, Any]
    setup: str
    tasks: dict[str, TaskScores]
    named: bool = False
    files: tuple[Path, ...] = ()
    superseded: tuple[Path, ...] = ()

    @property
    def method(self) -> str:
        """`config.clas.method`; `off` where nothing was steered, and for other models."""
        return str(self.steering.get("method", "off"))

    @property
    def unsteered(self) -> bool:
        """Whether the model is as it was loaded. A strength of 0 is reported as `off`."""
        return self.method == "off"

    @property
    def seed(self) -> int | None:
        """Of a random control; None for whatever has no randomness."""
        return int(self.steering.get("seed", 0)) if self.method == "random" else None
