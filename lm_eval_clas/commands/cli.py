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
from lm_eval_clas.commands.application import app, failures
from lm_eval_clas.commands.explaining import (
    causes_command,
    families_command,
    geometry_command,
    inspect_command,
    stability_command,
    verify_command,
)
from lm_eval_clas.commands.manners.command_kind import STOPPED

# Each module adds its commands to the application when it is imported.
MODULES = (
    causes_command,
    export_command,
    families_command,
    geometry_command,
    inspect_command,
    mask_commands,
    paper_command,
    push_command,
    report_command,
    route_command,
    shipped_commands,
    stability_command,
    table_command,
    tune_command,
    verify_command,
)
# The order of the work, in which help lists them: a first try, the main job, a whole study, what explains it, what goes out.
ORDER = (
    *("demo", "demo-model"),
    *("profile", "masks", "inspect", "tune", "tasks", "route", "eval", "verify", "table"),
    *("paper", "report"),
    *("geometry", "stability", "causes", "families"),
    *("export", "push", "serve"),
)
app.registered_commands.sort(
    key=lambda one: ORDER.index(one.name or (one.callback.__name__ if one.callback else "").replace("_", "-"))
)

# What a disk or its owner refuses, in files that libraries write (caches, for example): not a mistake of the program.
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2."""
    app.stop_told = False
    try:
        app(prog_name="clas")  # also where it is started as a module
    except ClasError as error:
        failures.print(f"[bold red]Error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        failures.print(f"[bold red]Error:[/bold red] {escape(str(error))}; free it or choose another place.", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:  # once more, while a command ended
        sys.exit(STOPPED)
    except SystemExit as end:
        if end.code == STOPPED:  # where no command had begun, nobody has said anything
            app.tell_stop("Nothing was begun.")
        raise
