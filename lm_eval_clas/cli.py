"""The `clas` command: its parts by name, and what a user's mistake looks like."""

from __future__ import annotations

import errno
import sys

from rich.markup import escape

from lm_eval_clas.commands import export, neurons, paper, push, report, route, running, study, table, tune
from lm_eval_clas.commands.common import app, failures, messages
from lm_eval_clas.errors import ClasError

# Each module adds its commands to the application when it is imported; help lists them in this order.
COMMANDS = (neurons, tune, route, table, study, report, paper, export, push, running)

# What a disk or its owner refuses, in files that libraries write (caches, for example): not a mistake of the program.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2."""
    try:
        app()
    except ClasError as error:
        failures.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        failures.print(f"[bold red]Error:[/bold red] {escape(str(error))}; free it or choose another place.", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        messages.print("Interrupted.")
        sys.exit(130)
