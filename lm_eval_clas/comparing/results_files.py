"""Runs read back from what the harness wrote: results files, and the samples logged beside them. Any model's, not only ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.formats.logged_samples import samples_beside
from lm_eval_clas.comparing.formats.results_content import date_of, metrics_of, model_arguments, results_content
from lm_eval_clas.comparing.runs import Run, TaskScores
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.steering.results_entry import deciding, joined, seed_of

_OLD_NAME = "results.json"  # before 0.4.3
# What decides the prompts of all tasks, and what messages call it.
_PROMPTING = {
    "chat_template_sha": "chat template",
    "system_instruction_sha": "system prompt",
    "fewshot_as_multiturn": "way of showing examples",
}
_ADAPTERS = ("peft", "delta")
# Of the model's arguments, ours: `config.clas` tells them, and tells `masks=` by content.
_OUR_ARGUMENTS = {"masks", "alpha", "beta", "gamma", "layers", "specific_scope", "partial_scope", "method", "seed"}
_OUR_ARGUMENTS |= {"language", "unseen", "pair", "projection", "scoring"}


@dataclass(frozen=True)
class _File:
    """One results file; `answered` are its tasks, and `tasks` those of them that have scores."""

    path: Path
    label: str | None
    data: dict[str, Any]
    setup: str
    tasks: dict[str, TaskScores]
    answered: frozenset[str]

    @property
    def arguments(self) -> dict[str, Any]:
        return model_arguments(self.data)

    @property
    def steering(self) -> dict[str, Any]:
        return self.data["config"].get("clas") or {}

    @property
    def run(self) -> tuple[str, ...]:
        """Files that share it are parts of one run: they have one label or one folder, one setup, and one seed."""
        seed = "" if seed_of(self.steering) is None else str(self.steering.get("seed"))
        shots = ",".join(map(str, sorted({task.shots or 0 for task in self.tasks.values()})))
        return (self.label or "", "" if self.label else str(self.path.parent), self.setup, shots, seed)

    @property
    def date(self) -> str:
        return date_of(self.path)


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs in results files and output folders of `lm_eval`, in the order given.

    Folders are searched with all that is in them. Files of the same folder (or label) and the same setup are one run, of
    which each task's newest result counts. Samples are read when they are needed.

    Args:
        paths: files, folders, or `LABEL=PATH`, which gives the run's name. A label may come several times, with parts of
            one run, with seeds of one random control, or with another setup for each family of tasks. In a folder that has
            a label, newer files replace older ones of the same tasks even if their setup was another, as when something was
            tuned anew.

    Raises:
        ClasError: nothing is there, or a file is damaged.
    """
    from lm_eval_clas.comparing.run_labels import with_labels

    return with_labels(_grouped(_read(given) for given in paths))


def runs_in(folder: Path, label: str) -> list[Run]:
    """The runs of one label in a folder of ours, as `read_runs` finds them, the newest last; none if there are no results.

    Raises:
        ClasError: a results file is damaged or something else.
    """
    files = []
    for path in _results_files(folder):
        if (file := _parse(path, label)) is None:
            raise ClasError(f"'{path}' holds no results of lm_eval; take it away, or run the stage again that wrote it.")
        files.append(file)
    return sorted(_grouped([files]), key=lambda run: run.files[0].name)


def _grouped(given: Iterable[Iterable[_File]]) -> list[Run]:
    """The runs that files make, those of one path after the other."""
    groups: dict[tuple[str, ...], list[_File]] = {}
    older: dict[tuple[str, ...], list[Path]] = {}
    for read in given:
        for files in _folders(read):
            kept = [file for file in files if not (file.label and _replaced(file, files))]
            older.setdefault(kept[0].run, []).extend(file.path for file in files if file not in kept)
            for file in kept:
                if file.path not in [known.path for known in groups.setdefault(file.run, [])]:
                    groups[file.run].append(file)
    return [_join(group, older.get(key, [])) for key, group in groups.items()]


def _folders(files: Iterable[_File]) -> list[list[_File]]:
    by_folder: dict[Path, list[_File]] = {}
    for file in files:
        by_folder.setdefault(file.path.parent, []).append(file)
    return list(by_folder.values())


def _replaced(file: _File, others: Sequence[_File]) -> bool:
    """Whether a newer file of another setup has all the tasks of this one. Seeds do not replace each other."""
    newer = [one for one in others if one.date > file.date and one.setup != file.setup]
    return bool(file.answered) and any(file.answered <= one.answered for one in newer)


def _read(given: str | Path) -> Iterator[_File]:
    label, path = _split(given)
    if path.is_dir():
        found = _results_files(path)
    elif path.is_file():
        found = [path]
    else:
        raise ClasError(f"'{path}' does not exist; give a results file or an output folder of lm_eval, or LABEL=PATH.")
    files = [file for one in found if (file := _parse(one, label))]
    if not files:
        which = f" in files named as it names them (results_*.json, {_OLD_NAME})" if path.is_dir() else ""
        raise ClasError(
            f"'{path}' holds no results of lm_eval{which}; name the file itself, or run lm_eval with --output_path."
        )
    yield from files


def _split(given: str | Path) -> tuple[str | None, Path]:
    """A path that has an equals sign in its own name wins over a label."""
    label, equals, rest = str(given).partition("=")
    whole = user_path(given)
    if not equals or not label.strip() or whole.exists():
        return None, whole
    return label.strip(), user_path(rest)


def _results_files(folder: Path) -> list[Path]:
    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.parts)

    named = [*folder.rglob("results_*.json"), *folder.rglob(_OLD_NAME)]
    return sorted(one for one in named if not hidden(one.relative_to(folder)))


def _parse(path: Path, label: str | None) -> _File | None:
    """One results file; None if it is JSON of another kind."""
    data = results_content(path)
    if data is None:
        return None
    tasks = {task: _scores(path, data, task) for task in data["results"] if not _of(data, "group_subtasks", task)}
    scored = {name: task for name, task in tasks.items() if task.metrics}
    return _File(path, label, data, _setup(data), scored, frozenset(tasks))


def _of(data: dict[str, Any], field: str, task: str) -> Any:
    """What a results file says of a task under one of its headings, or None."""
    return (data.get(field) or {}).get(task)


def _scores(path: Path, data: dict[str, Any], task: str) -> TaskScores:
    given = data["config"].get("model_args")
    return TaskScores(
        task=task,
        metrics=metrics_of(data["results"][task]),
        items=(_of(data, "n-samples", task) or {}).get("effective"),
        version=str(_of(data, "versions", task)),
        digest=_of(data, "task_hashes", task) or "",
        shots=_of(data, "n-shot", task),
        higher_is_better={name: one for name, one in (_of(data, "higher_is_better", task) or {}).items() if one is not None},
        samples=samples_beside(path, task, data["results"], date_of(path), given if isinstance(given, str) else ""),
    )


def _setup(data: dict[str, Any]) -> str:
    config = data["config"]
    steering = {key: value for key, value in deciding(config.get("clas") or {}).items() if key != "seed"}
    arguments = model_arguments(data)
    if steering:
        arguments = {key: value for key, value in arguments.items() if key not in _OUR_ARGUMENTS}
    said = [data.get(key) for key in ("model_source", *_PROMPTING)]
    return json.dumps([said, arguments, config.get("gen_kwargs"), steering], sort_keys=True, default=str)


def _join(files: Sequence[_File], older: Sequence[Path]) -> Run:
    """One run of all its files."""
    newest_first = sorted(files, key=lambda file: file.date, reverse=True)
    tasks: dict[str, TaskScores] = {}
    used: list[_File] = []
    superseded = list(older)
    for file in newest_first:
        if not used or file.answered - {task for one in used for task in one.answered}:
            used.append(file)
        else:
            superseded.append(file.path)
        tasks = {**file.tasks, **tasks}
    newest = newest_first[0]
    arguments, model = newest.arguments, newest.data["config"].get("model")
    adapter = {name: str(arguments[name]) for name in _ADAPTERS if arguments.get(name)}
    # The harness calls a model with an adapter after the adapter.
    base, name = arguments.get("pretrained"), newest.data.get("model_name")
    names = (base if adapter else None, name, base, model, "model")
    return Run(
        label=newest.label or "",
        named=newest.label is not None,
        model=next(str(name) for name in names if name),
        source=newest.data.get("model_source") or model or "model",
        steering=joined([file.steering for file in reversed(used)]),
        setup=newest.setup,
        tasks=dict(sorted(tasks.items())),
        files=tuple(file.path for file in used),
        superseded=tuple(superseded),
        adapter=adapter,
        prompting={called: newest.data.get(name) or None for name, called in _PROMPTING.items()},
        conditions=_conditions(used),
    )


def _conditions(files: Sequence[_File]) -> dict[str, tuple[str, ...]]:
    """How a run was computed, as far as its files say so: what should change no score, and does a little."""
    found: dict[str, dict[str, None]] = {}
    for file in files:
        config = file.data["config"]
        source = file.data.get("model_source") or config.get("model") or ""
        told = {
            # The harness's own model class has one path, which ours calls so.
            "scoring path": file.steering.get("scoring") or ("stock" if source == "hf" else None),
            "dtype": (config.get("model_dtype") or "").removeprefix("torch.") or None,
            "batch size": config.get("batch_size"),
            "version of lm_eval": file.data.get("lm_eval_version"),
            "version of transformers": file.data.get("transformers_version"),
        }
        for name, value in told.items():
            if value is not None:
                found.setdefault(name, {})[str(value)] = None
    return {name: tuple(values) for name, values in found.items()}
