"""`clas profile` and `clas masks`: from parallel texts to a mask folder."""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands.application import (
    OTHER,
    Force,
    Json,
    app,
    confirm,
    may_replace,
    messages,
    next_run,
    notes,
    number_option,
    parse_words,
    path_argument,
    path_option,
    progress_bars,
    tell_next,
)
from lm_eval_clas.commands.explaining.inspect_command import tell_masks
from lm_eval_clas.commands.shared_options import (
    BatchSizeOption,
    BridgeOption,
    DeviceOption,
    ExcludeLastOption,
    MaxTokensOption,
    ModelOption,
    StatisticOption,
    ThresholdOption,
    TokensOption,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lm_eval_clas.masks.adding import MonolingualText
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.neurons.profile_folder import Profile
    from lm_eval_clas.neurons.residual_folder import ResidualProfile
    from lm_eval_clas.texts.corpora import ParallelTexts


class Level(str, Enum):
    """Whether categories are counted over the data set only, or also for each input."""

    dataset = "dataset"
    instance = "instance"


class SiteOption(str, Enum):
    """Which of a layer's two outputs the neurons make, the MLP's or attention's; or what leaves the whole layer."""

    mlp = "mlp"
    attn = "attn"
    residual = "residual"


class FirstTokenOption(str, Enum):
    """Whether the first position of every text counts."""

    keep = "keep"
    skip = "skip"


class HalfOption(str, Enum):
    """Which items of the sample: every other one, from the first or from the second on."""

    first = "first"
    second = "second"


def _finished_languages(out: Path, **_: Any) -> str:
    finished = sorted(path.stem for path in out.glob("*.safetensors") if path.stem != "instances")
    return f"Finished: {', '.join(finished) or 'none'}. The same command goes on from there."


@app.command(name="profile", kept=_finished_languages)
def profile_command(
    model: ModelOption,
    corpus: Annotated[
        str, typer.Option(help="xquad, xnli, mini, a .jsonl file, or a folder of LANGUAGE.txt or LANGUAGE.jsonl files.")
    ],
    out: Annotated[Path, path_option("Folder for the profile; finished languages in it are kept.")],
    languages: Annotated[str | None, typer.Option(help="BCP-47 codes, e.g. en,ar,hi; default: all of the corpus.")] = None,
    samples: Annotated[int | None, typer.Option(help="Items to profile on; default: all of the corpus.", min=1)] = None,
    half: Annotated[
        HalfOption | None, typer.Option(help="Every other item of the sample only, for the ceiling of clas stability.")
    ] = None,
    batch_size: BatchSizeOption = 8,
    max_tokens: MaxTokensOption = 2048,
    first_token: Annotated[
        FirstTokenOption,
        typer.Option(help="skip: the first position does not count, where models keep an attention sink; BOS never counts."),
    ] = FirstTokenOption.skip,
    level: Annotated[
        Level, typer.Option(help="instance: also count categories input by input (Wang et al. 2024).")
    ] = Level.dataset,
    model_args: Annotated[
        str, typer.Option(help="More arguments of the harness's hf model, e.g. dtype=bfloat16,gguf_file=model.gguf.")
    ] = "",
    model_name: Annotated[str | None, typer.Option(help="What to call the model in the profile; default: --model.")] = None,
    device: DeviceOption = None,
    site: Annotated[
        SiteOption,
        typer.Option(
            help="mlp: inputs of the down-projections; attn: of attention's output projections; residual: layers' outputs."
        ),
    ] = SiteOption.mlp,
    projection: Annotated[
        str | None, typer.Option(help="Pattern of the projections' names, where they are not found by structure.")
    ] = None,
) -> None:
    """Profile what every neuron does in each language, on the same texts in all of them."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.base.processes import Processes
    from lm_eval_clas.disk.written import claimed, require_ours
    from lm_eval_clas.harness.model_loading import load_model
    from lm_eval_clas.neurons.instances import profile_instances
    from lm_eval_clas.neurons.profiling import profile, profile_residual
    from lm_eval_clas.texts.corpora import ParallelInputBuilder

    residual = site is SiteOption.residual
    if residual and (projection is not None or level is Level.instance):
        raise ClasError(
            f"--{'projection' if projection is not None else 'level'} is about neurons, and --site residual has none; drop it."
        )
    quiet_libraries()
    require_ours([out], out)  # before the model is loaded
    texts = ParallelInputBuilder(corpus, parse_words(languages) or None, samples, half.value if half else None).build()
    measured: dict[str, Any] = {"max_tokens": max_tokens, "first_token": first_token.value, "model_args": model_args}
    options: dict[str, Any] = {**measured, "batch_size": batch_size, "processes": Processes.launched()}
    of_neurons: dict[str, Any] = {} if residual else {"site": site.value, "projection": projection}
    told: dict[str, Any] = {"name": model_name, **measured, **of_neurons}
    there = _finished(model, texts, out, **told) if level is Level.dataset else None
    if there is not None:
        _tell_profiled("Nothing left to run: already profiled", there, texts, out)
        return
    with claimed(out) if options["processes"].main else nullcontext(), progress_bars() as progress:
        progress.say("loading the model")
        lm = load_model(model, model_args, device)
        tasks = {language: progress.add_task(f"profiling {language}", total=len(texts.ids)) for language in texts.languages}
        by_input = progress.add_task("input by input", total=len(texts.ids)) if level is Level.instance else None
        common: dict[str, Any] = {"name": model_name, "out": out, **options}
        common["report"] = lambda language, done, _: progress.update(tasks[language], completed=done)
        made: Profile | ResidualProfile
        if residual:
            made = profile_residual(lm.model, lm.tokenizer, texts, **common)
        else:
            made = profile(lm.model, lm.tokenizer, texts, **common, **of_neurons)
        if by_input is not None:
            options |= {"name": model_name, "report": lambda done: progress.update(by_input, completed=done)}
            profile_instances(lm.model, lm.tokenizer, texts, out, **options, **of_neurons)
    _tell_profiled("Profiled", made, texts, out)


def _finished(model: str, texts: ParallelTexts, out: Path, **options: Any) -> Profile | ResidualProfile | None:
    """The finished profile of these inputs in a folder, told without the model's weights; None if there is none.

    Options that are not about neurons are those of `profile_residual`.
    """
    from lm_eval_clas.harness.model_loading import modules_to_load
    from lm_eval_clas.neurons.profile_folder import PROFILE_CONFIG_FILE
    from lm_eval_clas.neurons.profiling import finished_profile, finished_residual

    if not (out / PROFILE_CONFIG_FILE).is_file() or (modules := modules_to_load(model, options["model_args"])) is None:
        return None
    return (finished_profile if "site" in options else finished_residual)(modules, texts, out, **options)


def _tell_profiled(done: str, made: Profile | ResidualProfile, texts: ParallelTexts, out: Path) -> None:
    """What a profile is of, and the command that comes next."""
    from lm_eval_clas.neurons.bridge import layers_text
    from lm_eval_clas.neurons.residual_folder import ResidualProfile

    given: tuple[str, ...]
    if isinstance(made, ResidualProfile):
        tokens, given = sum(one.count for one in made.by_language.values()), ("PROFILE", "--residual", str(out))
    else:
        tokens, given = sum(one.counts["all"] for one in made.by_language.values()), (str(out),)
    what = f"{len(texts.ids)} items in {len(made.languages)} languages, {tokens:,} tokens"
    notes.print(f"{done} {what}: {escape(str(out))}")
    if empty := made.config.fingerprint.empty_layers:
        messages.print(f"Left out, as they have no neurons at this site that a text reaches: layers {layers_text(empty)}.")
    tell_next("clas", "masks", *given, "--out", "masks/NAME")


@app.command()
def masks(
    context: typer.Context,
    profile: Annotated[Path, path_argument("Folder that clas profile wrote; with --add-language, a mask folder will also do.")],
    out: Annotated[Path, path_option("Mask folder to write.")],
    statistic: StatisticOption = "signed-mean",
    tokens: TokensOption = "all",
    by: Annotated[
        str, typer.Option(help="channel, or head: a profile of attention by whole heads, by the mean over their channels.")
    ] = "channel",
    threshold: ThresholdOption = 0.0,
    anchor: Annotated[str, typer.Option(help="The language that is never steered.")] = "en",
    bridge: BridgeOption = "auto",
    exclude_last: ExcludeLastOption = 2,
    level: Annotated[Level, typer.Option(help="instance: also report categories input by input.")] = Level.dataset,
    beta: Annotated[float, number_option("Amplification of partial-shared neurons, unless a run gives another.")] = 0.4,
    gamma: Annotated[float, number_option("Damping of language-specific neurons, unless a run gives another.")] = 0.2,
    min_tokens: Annotated[
        int, typer.Option(help="Mixtures of experts: tokens that an expert must have seen in every language.", min=1)
    ] = 100,
    keep_means: Annotated[bool, typer.Option(help="Store the means in the folder too (profile.safetensors).")] = False,
    residual: Annotated[
        Path | None,
        path_option("Profile of the same texts with --site residual, which methods need that act on what leaves the layers."),
    ] = None,
    specific: Annotated[
        str,
        typer.Option(
            help="Language-specific neurons by counts, by lape (Tang et al. 2024), or from a published FILE.neuron.pth."
        ),
    ] = "counts",
    specific_languages: Annotated[str, typer.Option(help="Languages of the file's lists in their order, e.g. en,zh,fr.")] = "",
    lape_top: Annotated[float, number_option("Share of all neurons that lape keeps, of the lowest entropy.")] = 0.01,
    lape_percentile: Annotated[float, number_option("Quantile of all probabilities that lape's neurons must exceed.")] = 0.95,
    add_language: Annotated[
        list[str], typer.Option(help="quy=FILE.txt: also profile this language, on plain text, one text a line; repeatable.")
    ] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option(help="For --add-language: the model that was profiled.")] = None,
    model_args: Annotated[str, typer.Option(help="For --add-language: as in clas profile.")] = "",
    device: Annotated[str | None, typer.Option(help="For --add-language: as in clas profile.")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Turn a profile into a mask folder: categories of neurons and bridge layers."""
    from lm_eval_clas.disk.written import require_ours
    from lm_eval_clas.masks.adding import MonolingualText
    from lm_eval_clas.masks.lape import LapeSelector, with_lape, with_neuron_file
    from lm_eval_clas.masks.mask_place import lost, strange_files
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.neurons.categories import NeuronCategorizer
    from lm_eval_clas.neurons.instances import load_instance_shares
    from lm_eval_clas.neurons.profile_folder import PROFILE_CONFIG_FILE, Profile
    from lm_eval_clas.neurons.residual_folder import ResidualProfile

    texts = [MonolingualText.parse(one) for one in add_language]
    if texts and model is None:
        raise ClasError("--add-language profiles that language: give the model that was profiled, with --model.")
    _refuse(context, "model model_args device", unless=bool(texts), because="needs --add-language")
    _refuse(context, "lape_top lape_percentile", unless=specific == "lape", because="needs --specific lape")
    if level is Level.instance and by != "channel":
        raise ClasError("--level instance counts channels and not heads; drop --by or --level.")
    by_file = specific not in ("counts", "lape")
    _refuse(context, "specific_languages", unless=by_file, because="needs --specific FILE.neuron.pth")
    of_a_profile = (profile / PROFILE_CONFIG_FILE).is_file()
    before = MaskSet.load(profile) if texts and not of_a_profile else None
    require_ours([], out)
    force = may_replace([str(path) for path in strange_files(out)], force) or force
    means, outputs = keep_means, residual is not None
    if before is not None:
        means, outputs = before.means is not None, before.residual is not None
    if gone := lost(out, before.config if before else None, means, outputs):
        confirm(f"New masks in '{out}' would not have {' and '.join(gone)} of those that are there", force)
    if before is not None:
        _refuse(context, _OF_A_PROFILE, because=f"needs a profile, and '{profile}' is none; drop it")
        _finish(_add(before, texts, model, model_args, device), out, force, as_json)
        return
    loaded = Profile.load_finished(profile)
    made = MaskSet.from_profile(
        loaded,
        categorizer=NeuronCategorizer(statistic, tokens, threshold, by, min_tokens),  # type: ignore[arg-type]
        anchor=anchor,
        bridge=bridge,
        exclude_last=exclude_last,
        keep_means=keep_means,
    )
    made = made.with_strengths(beta, gamma)
    if level is Level.instance:
        made = made.with_instance_shares(load_instance_shares(profile, statistic, tokens, threshold))  # type: ignore[arg-type]
    if specific == "lape":
        made = with_lape(made, loaded, LapeSelector(lape_top, lape_percentile))
    if by_file:
        made = with_neuron_file(made, specific, parse_words(specific_languages))
    if residual is not None:
        made = made.with_residual(ResidualProfile.load_finished(residual))
    made = _add(made, texts, model, model_args, device)
    if by_file and texts:  # once more, as the file may have neurons of the added languages
        made = with_neuron_file(made, specific, parse_words(specific_languages))
    _finish(made, out, force, as_json)


_OF_A_PROFILE = (
    "statistic tokens by threshold anchor bridge exclude_last level beta gamma min_tokens keep_means residual specific"
)


def _refuse(context: typer.Context, names: str, because: str, unless: bool = False) -> None:
    """Refuses options that were given and would be ignored."""
    given = [name for name in names.split() if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given and not unless:
        raise ClasError(f"--{given[0].replace('_', '-')} {because}.")


def _add(masks: MaskSet, texts: list[MonolingualText], model: str | None, model_args: str, device: str | None) -> MaskSet:
    """Profiles and appends languages."""
    if not texts:
        return masks
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.harness.model_loading import load_model
    from lm_eval_clas.masks.adding import add_language

    quiet_libraries()
    with progress_bars() as progress:
        progress.say("loading the model")
        lm = load_model(str(model), model_args, device)
        bars = [progress.add_task(f"profiling {text.language}", total=len(text.lines)) for text in texts]
        for text, bar in zip(texts, bars, strict=True):

            def report(done: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done)

            masks = add_language(masks, lm.model, lm.tokenizer, text, report=report)
    return masks


def _finish(masks: MaskSet, out: Path, force: bool, as_json: bool) -> None:
    masks.save(out, force=force)
    tell_masks(masks, as_json)
    lead = f"Wrote {escape(str(out))}. Next"
    tell_next(*next_run("hf-clas", [f"pretrained={OTHER}", f"masks={out}"]), lead=lead)
