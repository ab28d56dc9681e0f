"""`clas export`: steering as an adapter or as weights, for whatever does not know hf-clas."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands.application import (
    Force,
    app,
    console,
    may_replace,
    messages,
    next_run,
    number_option,
    parse_words,
    path_option,
    progress_bars,
    tell_next,
)
from lm_eval_clas.commands.shared_options import LayersOption, ModelOption, PartialScopeOption, SpecificScopeOption


class ExportFormat(str, Enum):
    """What is written for each language."""

    ia3 = "ia3"
    merged = "merged"


def _finished_exports(out: Path, **_: Any) -> str:
    return f"Languages that are whole in '{out}' are kept; the same command skips them and goes on with the others."


@app.command(kept=_finished_exports)
def export(
    masks: Annotated[str, typer.Argument(help="Mask folder, name of a shipped one, or Hub repository user/name[@revision].")],
    model: ModelOption,
    language: Annotated[list[str], typer.Option(help="Language to steer for, repeatable or with commas; or all.")],
    format: Annotated[ExportFormat, typer.Option(help="ia3: a PEFT adapter, small; merged: a whole checkpoint.")],
    out: Annotated[Path, path_option("Folder to write; with several languages or all, one folder for each below it.")],
    alpha: Annotated[str, typer.Option(help="As in hf-clas: a number, a .json file by language, or tuned.")] = "1.0",
    task: Annotated[str | None, typer.Option(help="For --alpha tuned: the task or its family, e.g. clas_xquad.")] = None,
    beta: Annotated[float | None, number_option("As in hf-clas; default: the masks'.")] = None,
    gamma: Annotated[float | None, number_option("As in hf-clas; default: the masks'.")] = None,
    layers: LayersOption = None,
    method: Annotated[
        str, typer.Option(help="As in hf-clas. What adds is exported as merged alone, where the model can have such biases.")
    ] = "clas",
    specific_scope: SpecificScopeOption = "all",
    partial_scope: PartialScopeOption = "all",
    seed: Annotated[int, typer.Option(help="Of --method random and random-direction.", min=0)] = 0,
    projection: Annotated[
        str | None, typer.Option(help="Pattern of the projections' names, where they are not found by structure.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="As in transformers.")] = False,
    force: Force = False,
) -> None:
    """Write the steering of a language as a PEFT (IA)3 adapter, or folded into a checkpoint."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.export.added_biases import find_added
    from lm_eval_clas.export.ia3_adapter import find_ia3, write_ia3
    from lm_eval_clas.export.merged_checkpoint import mergeable, require_space, write_merged
    from lm_eval_clas.export.outline import outline, require_expressible, scalings
    from lm_eval_clas.export.written_export import Export, source_of
    from lm_eval_clas.masks.mask_set import MaskSet

    quiet_libraries()
    require_expressible(method, format.value)
    loaded = MaskSet.load(masks)
    named = [code for one in language for code in parse_words(one)]
    if not named or ("all" in named and len(named) > 1):
        raise ClasError("--language takes codes like hi,de, or all alone.")
    every = named == ["all"]
    chosen, skipped = scalings(
        loaded,
        None if every else named,
        task,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        layers=layers,
        method=method,
        specific_scope=specific_scope,
        partial_scope=partial_scope,
        seed=seed,
    )
    alone = not every and len(chosen) == 1
    folders = {one.language: out if alone else out / one.language for one in chosen}
    for code, why in skipped.items():
        messages.print(f"Skipping {code}: {why}.", highlight=False)
    base = outline(model, loaded, revision, projection, trust_remote_code)
    checkpoint = mergeable(base) if format is ExportFormat.merged else None
    source = source_of(base, checkpoint)
    exports = {one.language: Export(one, loaded, base, format.value, source, folders[one.language]) for one in chosen}
    found = {code: find_ia3(one) if checkpoint is None else one.find() for code, one in exports.items()}
    if there := [code for code, one in found.items() if one.whole]:
        messages.print(f"Already written, skipped: {', '.join(there)}", highlight=False)
    left = {code: one for code, one in exports.items() if code not in there}
    may_replace([path for code in left for path in found[code].doubtful], force)
    if checkpoint is not None:
        require_space(checkpoint, len(left), out)
    with progress_bars() as progress:
        biases = None
        if checkpoint is not None and any(one.scaling.done.shifts is not None for one in left.values()):
            progress.say("looking for biases")
            biases = find_added(base, [one.scaling for one in left.values()], checkpoint)
        shards = 1 if checkpoint is None else len(checkpoint.shards)
        bars = {code: progress.add_task(f"writing {code}", total=shards) for code in left}
        for code, job in left.items():
            step = partial(progress.advance, bars[code])
            if checkpoint is None:
                write_ia3(job, found[code])
                step()
            else:
                write_merged(job, found[code], checkpoint, biases, step)
    if biases is not None and biases.form.field:
        field = ".".join(biases.form.field)
        messages.print(
            f"In config.json, {field} is {str(biases.form.value).lower()} now, for the biases that take what is added; others "
            "that it brings are 0.",
            highlight=False,
        )
    for one in chosen:
        strength = f"alpha {one.steering.strength(one.language):g}"
        console.print(f"{one.language:6} {strength:12} {escape(str(folders[one.language]))}", highlight=False, soft_wrap=True)
    folder = folders[chosen[0].language]
    arguments = [f"pretrained={folder}"]
    if format is ExportFormat.ia3:
        arguments = [f"pretrained={model}", f"revision={revision}" if revision else "", f"peft={folder}"]
    tell_next(*next_run("hf", [*arguments, "trust_remote_code=True" if trust_remote_code else ""]))
