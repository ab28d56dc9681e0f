"""Whoever sits at a terminal is asked before something is replaced; a script is refused, with the names."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import typer

from lm_eval_clas import ClasError
from lm_eval_clas.commands.application import may_replace


def at_terminal(monkeypatch: pytest.MonkeyPatch, stdin: bool = True, stderr: bool = True) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: stdin)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: stderr)


@pytest.mark.parametrize(("stdin", "stderr"), [(False, True), (True, False), (False, False)])
def test_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch, stdin: bool, stderr: bool) -> None:
    at_terminal(monkeypatch, stdin, stderr)
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ClasError, match=r"^a\.txt, b\.txt are already there and not known to be what .*--force to"):
        may_replace(["a.txt", "b.txt"], force=False)
    may_replace([], force=False)
    may_replace(["a.txt"], force=True)


def test_a_person_is_asked_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    at_terminal(monkeypatch)
    asked: list[Sequence[object]] = []
    for answer in (True, False):
        monkeypatch.setattr(typer, "confirm", lambda *question, answer=answer, **_: asked.append(question) or answer)
        if answer:
            may_replace(["a.txt"], force=False)
        else:
            with pytest.raises(typer.Exit) as end:
                may_replace(["a.txt"], force=False)
            assert end.value.exit_code == 1
    assert asked == 2 * [("a.txt is already there and not known to be what this program wrote. Replace?",)]
