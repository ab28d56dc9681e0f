"""`clas push`: masks onto the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.commands.application import OTHER, Force, app, console, may_replace, next_run, tell_next


def _one_commit(repository: str, **_: Any) -> str:
    return f"A commit is made whole or not at all; look at {repository} on the Hub, and give the same command again."


@app.command(kept=_one_commit)
def push(
    masks: Annotated[str, typer.Argument(help="Mask folder, or name of a shipped one.")],
    repository: Annotated[str, typer.Argument(help="Hub repository, user/name; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to; made where there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    force: Force = False,
) -> None:
    """Put a mask folder on the Hugging Face Hub, with a model card and the categories plot, in one commit.

    Of a README.md that is there, only the part that clas wrote is replaced.
    """
    from lm_eval_clas.export.pushing import push_masks
    from lm_eval_clas.masks.mask_set import MaskSet

    pushed = push_masks(
        MaskSet.load(masks), repository, private, revision, message, may_replace=lambda what: may_replace(what, force)
    )
    console.print(f"Pushed {escape(masks)} to {escape(pushed.repository)}, commit {pushed.revision}", soft_wrap=True)
    arguments = [f"pretrained={OTHER}", f"masks={pushed.repository}@{pushed.revision}"]
    tell_next(*next_run("hf-clas", arguments))
