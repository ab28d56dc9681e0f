"""The one exception that a user's mistake raises, and what of a library's is quoted in it."""

from __future__ import annotations

from lm_eval_clas.base.escaping import visible


class ClasError(ValueError):
    """Bad input: one sentence that says what is wrong, which file or option, and what to do.

    The command line prints it and exits with code 2; inside the harness it is an ordinary `ValueError`. What it quotes of files
    and their names can do nothing but be seen.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))


def first_line(error: Exception) -> str:
    """What a library's error says, as far as a sentence has room for it: its first line, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
