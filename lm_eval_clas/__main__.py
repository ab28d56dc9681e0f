"""`python -m lm_eval_clas` is `clas`; launchers start modules more readily than commands."""

import sys


def command_line() -> None:
    """Runs the command line; Ctrl-C while its parts are imported ends it like any other time."""
    try:
        from lm_eval_clas.commands.cli import main
    except KeyboardInterrupt:
        print("Interrupted. Nothing was begun.", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    command_line()
