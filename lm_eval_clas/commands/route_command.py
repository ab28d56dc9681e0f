"""`clas route`: what language the requests of each task get, and why."""

from __future__ import annotations

import json as jsons
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Json, app, console, messages, parse_words
from lm_eval_clas.commands.shared_options import PairLanguage, PairOption

if TYPE_CHECKING:
    from lm_eval_clas.harness.task_routes import Steerable, TaskRoute


@app.command()
def route(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks, groups, tags, patterns such as 'xnli_*', or all.", show_default=False)
    ] = None,
    masks: Annotated[str | None, typer.Option(help="Mask folder, shipped name or Hub repository: what is steered.")] = None,
    languages: Annotated[
        str | None, typer.Option(help="Instead of masks: codes or names, with commas; English is the anchor.")
    ] = None,
    pair: PairOption = PairLanguage.target,
    texts: Annotated[
        int, typer.Option(help="Look at so many documents all over each task, too, which loads its data.", min=0)
    ] = 0,
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder with further tasks; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Say what language the requests of each task get, from which evidence, and whether they are steered; nothing runs."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.disk.files import shipped
    from lm_eval_clas.harness.task_routes import find_tasks, route_by_name, route_by_texts
    from lm_eval_clas.languages.task_index import read_index

    wanted = [one for given in tasks or [] for one in parse_words(given)]
    if not wanted:
        raise ClasError("clas route needs the names of tasks, e.g. 'clas route xnli belebele_hin_Deva', or all.")
    if missing := [path for path in include_path or [] if not path.is_dir()]:
        raise ClasError(f"--include-path: there is no folder '{missing[0]}'.")
    steerable = _steerable(masks, languages)
    quiet_libraries()
    paths = [shipped("tasks"), *(include_path or [])]
    with messages.status("Reading the names of all tasks ..."):
        index = read_index(paths)
    found = find_tasks(wanted, index)
    if texts:
        with messages.status(f"Loading {texts} documents of {len(found)} tasks ..."):
            routes = route_by_texts(found, paths, steerable, pair.value, texts)
    else:
        routes = route_by_name(found, index, steerable, pair.value)
    if json:
        print_out(jsons.dumps([asdict(one) for one in routes], indent=1))
    else:
        _show(routes)


def _steerable(masks: str | None, languages: str | None) -> Steerable:
    from lm_eval_clas.harness.task_routes import Steerable
    from lm_eval_clas.languages.language_names import require_language

    if masks is not None and languages is not None:
        raise ClasError("Give --masks or --languages, not both: the masks say which languages they steer.")
    if masks is not None:
        from lm_eval_clas.masks.mask_set import MaskSet

        loaded = MaskSet.load(masks)
        return Steerable(loaded.languages, loaded.anchor)
    if languages is None:
        return Steerable()
    codes = (require_language(one, "--languages: ") for one in parse_words(languages))
    return Steerable(tuple(dict.fromkeys(codes)), "en")


def _show(routes: list[TaskRoute]) -> None:
    table = FoldedTable("task", "language", "from", "steered", "why")
    for one in routes:
        steered = "?" if one.steered is None else "yes" if one.steered else "no"
        table.add_row(escape(one.task), one.language or "?", one.source, steered, escape(one.why))
    console.print(table)
