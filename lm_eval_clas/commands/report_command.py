"""`clas report`: a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.markup import escape

from lm_eval_clas.commands.application import Force, app, notes, path_argument, path_option, replacing, replacing_file


@app.command()
def report(
    folder: Annotated[Path, path_argument("Folder of a study, as clas paper writes it; finished or not.", "DIR")],
    out: Annotated[Path | None, path_option("The HTML file; default: DIR/report.html.")] = None,
    force: Force = False,
) -> None:
    """Show a study as one HTML file that needs no network: did it help, how much, and against which controls."""
    from lm_eval_clas.study.report.rendering import write_report

    with replacing(folder, ["report.html"], force) if out is None else replacing_file(out, force):
        path, left_out = write_report(folder, out)
    for line in left_out:
        notes.print(f"Left out: {escape(line)}", highlight=False, soft_wrap=True)
    notes.print(f"Wrote {escape(str(path))} ({path.stat().st_size / 1000:,.0f} kB)", highlight=False, soft_wrap=True)
