"""`python -m lm_eval_clas` is `clas`; launchers start modules more readily than commands."""

from lm_eval_clas.commands.cli import main

if __name__ == "__main__":
    main()
