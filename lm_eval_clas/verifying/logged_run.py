"""`LoggedRun`: of a results file and the samples beside it, what is needed to compute its answers again."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.utils import simple_parse_args_string

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.disk.checked_json import parse_json, read_json, shown
from lm_eval_clas.harness.hf_clas import CLASLM

_DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)$")


@dataclass(frozen=True)
class Logged:
    """One request and what the model's method returned for it: of a log-likelihood, also whether the continuation is greedy."""

    request: Instance
    response: tuple[float, bool] | float | str

    @property
    def answer(self) -> float | str:
        """A log-likelihood in nats, or a text."""
        return self.response[0] if isinstance(self.response, tuple) else self.response


@dataclass(frozen=True)
class LoggedRun:
    """A steered run that logged its samples.

    Attributes:
        path: the results file.
        steering: its `config.clas`.
        arguments: its `config.model_args`.
    """

    path: Path
    steering: dict[str, Any]
    arguments: dict[str, Any]
    tasks: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> LoggedRun:
        """Reads a results file of lm_eval.

        Raises:
            ClasError: it is none, hf-clas did not write it, or nothing was steered. Other engines take other arguments, and cut
                long texts in other places, so that a right number of theirs may be none of `hf`'s.
        """
        path = user_path(path)
        try:
            data = read_json(path)
            config = data["config"]
            arguments = config.get("model_args") or {}
            arguments = simple_parse_args_string(arguments) if isinstance(arguments, str) else dict(arguments)
            steering, tasks = config.get("clas"), tuple(map(str, dict(data["results"])))
        except FileNotFoundError as error:
            raise ClasError(f"There is no file '{path}'; give a results file of lm_eval (results_*.json).") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClasError(f"'{path}' is no results file of lm_eval, or is damaged; give one (results_*.json).") from error
        if not isinstance(steering, dict) or steering.get("method", "off") == "off":
            raise ClasError(f"'{path}' tells of no steering, so nothing can be verified; give the results of --model hf-clas.")
        if steering.get("scoring") == "vllm":
            raise ClasError(
                f"'{path}' is of vllm-clas, which takes other arguments than hf and cuts long texts elsewhere, so it cannot be "
                "verified; evaluate some of its items with --model hf-clas and --log_samples, and verify that."
            )
        return cls(path, steering, arguments, tasks)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The model's arguments without those of steering."""
        ours = set(inspect.signature(CLASLM).parameters) - {"pretrained", "kwargs"}
        return {name: value for name, value in self.arguments.items() if name not in ours and value is not None}

    @cached_property
    def logged(self) -> list[Logged]:
        """All requests with their answers, in the order of tasks and documents.

        Raises:
            ClasError: there are no samples, or they are damaged.
        """
        date = _DATE.search(self.path.stem)
        files = {task: self.path.with_name(f"samples_{task}_{date[1]}.jsonl") for task in self.tasks} if date else {}
        files = {task: path for task, path in files.items() if path.is_file()}
        if not files:
            raise ClasError(f"'{self.path}' has no samples beside it; run lm_eval again with --log_samples.")
        return [one for task, path in files.items() for one in _requests(task, path)]


def _requests(task: str, path: Path) -> list[Logged]:
    found: dict[int, list[Logged]] = {}
    try:
        for line in path.read_bytes().splitlines():
            sample = parse_json(line)
            if sample["doc_id"] not in found:  # the same again for each filter
                found[int(sample["doc_id"])] = _of_sample(task, sample)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        why = shown(str(error) or type(error).__name__)
        raise ClasError(f"'{path}' is damaged or has another form than lm_eval writes ({why}); run the task again.") from error
    return [one for number in sorted(found) for one in found[number]]


def _of_sample(task: str, sample: dict[str, Any]) -> list[Logged]:
    requests = []
    for number, (given, answers) in enumerate(zip(sample["arguments"].values(), sample["resps"], strict=True)):
        arguments, answer = tuple(given.values()), answers[0]
        kind = "loglikelihood_rolling" if len(arguments) == 1 else "loglikelihood"
        if len(arguments) > 1 and isinstance(arguments[1], dict):
            kind = "generate_until"
        request = Instance(kind, sample["doc"], arguments, number, (task, int(sample["doc_id"]), 1))  # type: ignore[arg-type]
        value = str(answer) if kind == "generate_until" else float(answer[0] if isinstance(answer, (list, tuple)) else answer)
        response = (value, str(answer[1]) == "True") if kind == "loglikelihood" else value
        requests.append(Logged(request, response))  # type: ignore[arg-type]
    return requests


def unsteered_answers(folder: Path, task: str) -> list[tuple[str, tuple[Any, ...], Any]]:
    """What a run without steering answered in a task, as `SteeredLM.know` takes it.

    Args:
        folder: where its results and samples are, at whatever depth.

    Raises:
        ClasError: the samples are damaged.
    """
    every = (one for path in sorted(folder.rglob(f"samples_{task}_*.jsonl")) for one in _requests(task, path))
    return [(one.request.request_type, one.request.args, one.response) for one in every]
