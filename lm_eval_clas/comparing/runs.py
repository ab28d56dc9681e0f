"""Runs of the harness as plain data: what each task gave, and how the model was steered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.formats.logged_samples import read_documents, read_samples
from lm_eval_clas.evidence.cluster_fields import SWITCHED_OFF, Clustered, clustered_alike
from lm_eval_clas.steering.results_entry import left_alone, seed_of


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
        if self.samples is None:
            raise ClasError(f"The run of {self.task} has no samples; run it with --log_samples.")
        return read_samples(self.samples, list(self.metrics))

    def of_filter(self, name: str) -> Any:
        """The samples of one filter, by ascending `doc_id`, which is their index. Empty if there are none."""
        found = self.logged[self.logged["filter"].fillna("none") == name]
        return found.drop_duplicates("doc_id", keep="last").set_index("doc_id").sort_index()

    def item_scores(self, key: str) -> Any | None:
        """Each item's score: a float Series by `doc_id`; None if there are no samples or the metric is no mean of them.

        Args:
            key: metric and filter, such as `acc,none`.
        """
        metric, _, name = key.partition(",")
        if self.samples is None or key not in self.metrics:
            return None
        values = self.of_filter(name)[metric].astype(float)
        reported = self.metrics[key]
        if not len(values) or values.isna().any() or abs(values.mean() - reported) > 1e-6 * max(1.0, abs(reported)):
            return None
        return values


def clusters_of(tasks: Mapping[str, TaskScores], key: str, field: str | None) -> dict[str, Clustered]:
    """Which of the items of `item_scores` hang together, in their order; tasks without such items are not there.

    Args:
        tasks: of one family, by language.
        key: metric and filter, such as `acc,none`.
        field: of the documents, as `clustered_alike` takes it.

    Raises:
        ClasError: a document lacks the field.
    """
    scored = {one: values for one, task in tasks.items() if task.samples and (values := task.item_scores(key)) is not None}

    def documents() -> Iterator[tuple[str, list[Any]]]:
        for language, values in scored.items():
            path = tasks[language].samples
            known = {} if field == SWITCHED_OFF or path is None else read_documents(path)
            yield tasks[language].task, [known.get(number) for number in values.index]

    return dict(zip(scored, clustered_alike(documents(), field), strict=True))


@dataclass(frozen=True)
class Run:
    """One model, evaluated once, whatever number of tasks and of calls of the harness that took.

    Attributes:
        label: what tables call it; `named` if the user gave it.
        model: name or path, of an adapter that of its base; `source`: the harness's name of the model class, such as `hf`.
        adapter: what is loaded on top of the model, such as `peft` and `delta`, by the name of the argument.
        steering: `config.clas` of the results files, the newest one's but for what is told by language; empty for other models.
        setup: what decides its scores, but for tasks, shots and seed, as a string: random controls that share it are
            seeds of one.
        tasks: by name; groups are left out.
        files: the results files.
        superseded: older files, all of whose tasks were run again in the same setup.
        prompting: what else decides the prompts of all tasks (`chat template`, for example), as far as the file says so.
        conditions: what should change no score, and does a little (`dtype`, for example): the values that the files name.
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
    adapter: dict[str, str] = field(default_factory=dict)
    prompting: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """`config.clas.method`; `off` where nothing was steered, and for other models."""
        return str(self.steering.get("method", "off"))

    @property
    def unsteered(self) -> bool:
        """Whether the model is as it is: neither steered (a strength of 0 is reported as `off`) nor with an adapter."""
        return self.method == "off" and not self.adapter

    @property
    def seed(self) -> int | None:
        """Of a random control; None for whatever has no randomness."""
        return seed_of(self.steering)

    def leaves_alone(self, language: str, family: str) -> bool:
        """Whether the file says that nothing steers in a language of a task family: no method, the anchor, a strength of 0."""
        if self.method == "off":
            return True
        anchor = not self.steering.get("forced_language") and language == self.steering.get("anchor")
        return anchor or bool(left_alone(self.steering, language, family))
