"""The prompts that a model is really asked."""

from __future__ import annotations

from typing import Any

import pytest


def prompts_of(lm: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets the prompts of all requests that a model class is asked from now on."""
    asked: list[str] = []
    for kind in ("loglikelihood", "generate_until"):
        real = getattr(lm, kind)

        def spied(self: Any, requests: list[Any], disable_tqdm: bool = False, answer: Any = real) -> Any:
            asked.extend(str(request.args[0]) for request in requests)
            return answer(self, requests, disable_tqdm)

        monkeypatch.setattr(lm, kind, spied)
    return asked
