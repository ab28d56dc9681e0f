"""The one exception that a user's mistake raises."""

from __future__ import annotations

from lm_eval_clas.base.escaping import visible


class ClasError(ValueError):
    """Bad input: one sentence that says what is wrong, which file or option, and what to do.

    The command line prints it and exits with code 2; inside the harness it is an ordinary `ValueError`. What it quotes of files
    and their names can do nothing but be seen.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))
