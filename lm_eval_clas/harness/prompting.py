"""How the harness made a request's prompt, which the request alone does not tell: examples, and the chat template.

A task knows both while it builds its requests, in every version of the harness; from then on, they carry it along.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

_built = 0


@dataclass(frozen=True)
class Prompting:
    """Examples in the prompt, and whether it went through the model's chat template."""

    num_fewshot: int
    apply_chat_template: bool


def note_prompting() -> None:
    """From now on, requests that a task builds know how, and it is counted how often one builds them."""
    original = Task.build_all_requests
    if hasattr(original, "notes_prompting"):
        return

    @wraps(original)
    def build_all_requests(self: Task, **options: Any) -> None:
        global _built
        _built += 1
        original(self, **options)
        noted = Prompting(self.get_config("num_fewshot") or 0, bool(options.get("apply_chat_template")))
        for request in self.instances:
            request.clas_prompting = noted

    build_all_requests.notes_prompting = True  # type: ignore[attr-defined]
    Task.build_all_requests = build_all_requests


def prompting_of(request: Instance) -> Prompting | None:
    """How a request's prompt was made; None if no task built it, or before `note_prompting`."""
    return getattr(request, "clas_prompting", None)


def times_built() -> int:
    """How often a task has built its requests since `note_prompting`."""
    return _built
