"""The `clas` command: its parts by name, and what a user's mistake looks like."""

from __future__ import annotations

import errno
import sys

from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands import (
    export_command,
    mask_commands,
    paper_command,
    push_command,
    report_command,
    route_command,
    shipped_commands,
    table_command,
    tune_command,
)
from lm_eval_clas.commands.application import app, failures, messages
from lm_eval_clas.commands.explaining import (
    causes_command,
    families_command,
    geometry_command,
    stability_command,
    verify_command,
)

# Each module adds its commands to the application when it is imported; help lists them in this order.
COMMANDS = (
    mask_commands,
    tune_command,
    route_command,
    verify_command,
    table_command,
    geometry_command,
    stability_command,
    causes_command,
    report_command,
    paper_command,
    export_command,
    push_command,
    families_command,
    shipped_commands,
)
_order = [module.__name__ for module in COMMANDS]  # whatever the order in which Python imported them
app.registered_commands.sort(key=lambda one: _order.index(one.callback.__module__ if one.callback else ""))

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
