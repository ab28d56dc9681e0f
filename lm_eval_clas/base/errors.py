"""The one exception that a user's mistake raises."""

from __future__ import annotations


class ClasError(ValueError):
    """Bad input: one sentence that says what is wrong, which file or option, and what to do.

    The command line prints it and exits with code 2; inside the harness it is an ordinary `ValueError`.
    """
