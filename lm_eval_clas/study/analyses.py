"""The analyses of a study: what moved inside, how stable the masks are, and what goes with a gain.

analysis/stability.json        the profiles of the first two parts, against halves of the first
analysis/PART/categories.png   neurons by category and layer
analysis/PART/geometry.*       sentence representations with and without steering
analysis/PART/causes.json      candidate causes beside each language's gain
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_clas.disk.checked_json import read_as, write_as
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.languages.task_names import task_family
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.steering.alphas import DEFAULT, parse_alpha
from lm_eval_clas.steering.by_task import tuned_for

if TYPE_CHECKING:
    from lm_eval_clas.study.workplace import Workplace

_STEERING = ("beta", "gamma", "layers", "specific_scope", "partial_scope", "projection", "method", "seed")


def analyse(place: Workplace) -> list[str]:
    """Makes what is not there yet, and returns the commands that do the same by hand."""
    from lm_eval_clas.comparing.compare_runs import compare
    from lm_eval_clas.comparing.task_families import families

    commands = _stability(place)
    runs = place.evaluated()
    known = families(runs)
    lm: Any = None
    for number, part in enumerate(place.recipe.parts, start=1):
        place.progress.part(number, len(place.recipe.parts))
        folder = place.folder / "analysis" / part
        masks = MaskSet.load(_run_masks(place, part))
        _categories(masks, folder)
        family = task_family(place.recipe.parts[part].evaluate[0], masks.languages)
        if place.recipe.analyse.geometry_samples is not None:
            alphas = alphas_of_run(place, part, family, masks)
            if not (folder / "geometry.json").is_file():
                lm = lm or place.load()
                _geometry(place, part, masks, alphas, lm, folder)
            write_text(folder / "alphas.json", json.dumps(alphas) + "\n")
            commands.append(_geometry_command(place, part, folder))
        if family in known:
            compared = compare(runs, family, baseline=place.recipe.analyse.baseline, cluster=place.recipe.cluster)
            commands.append(_causes(place, part, masks, compared, folder))
    return commands


def alphas_of_run(place: Workplace, part: str, family: str, masks: MaskSet) -> dict[str, float]:
    """Alpha by language as the run that is analysed has it."""
    alpha = place.recipe.run_of(place.recipe.analyse.run, part).get("alpha", 1.0)
    if alpha != "tuned":
        parsed = parse_alpha(alpha, masks)
        return dict(parsed) if isinstance(parsed, Mapping) else {DEFAULT: parsed}
    tuned = tuned_for(masks, str(_steering(place, part).get("method", CLAS)))
    return {language: one.chosen.alpha for language, one in tuned.get(family, {}).items()} | {DEFAULT: 0.0}


def _steering(place: Workplace, part: str) -> dict[str, Any]:
    """The options of steering, but for alpha, of the run that is analysed."""
    run = place.recipe.run_of(place.recipe.analyse.run, part)
    return {name: run[name] for name in _STEERING if name in run}


def _run_masks(place: Workplace, part: str) -> Path:
    """The masks of the run that is analysed."""
    variant = place.recipe.run_of(place.recipe.analyse.run, part).get("variant")
    return place.masks_folder(part, None if variant is None else str(variant))


def _categories(masks: MaskSet, folder: Path) -> None:
    from lm_eval_clas.masks.category_picture import plot_categories

    plot_categories(masks, folder / "categories.png")


def _stability(place: Workplace) -> list[str]:
    from lm_eval_clas.neurons.stability import compare_profiles
    from lm_eval_clas.study.record import command

    parts = list(place.recipe.parts)[:2]
    if len(parts) < 2:
        return []
    step = place.recipe.masks
    a, b = (Profile.load_finished(place.profile_folder(part)) for part in parts)
    halves = [Profile.load_finished(place.profile_folder(name)) for name in place.halves]
    found = compare_profiles(
        a,
        b,
        (halves[0], halves[1]) if halves else None,
        categorizer=place.categorizer,
        bridge=step.bridge,
        exclude_last=step.exclude_last,
    )
    write_as(found, place.folder / "analysis" / "stability.json")
    folders = [place.profile_folder(name) for name in (*parts, *place.halves)]
    return [
        command(
            *("clas", "stability", *folders[:2], *(("--ceiling", *folders[2:]) if halves else ())),
            *("--statistic", step.statistic, "--tokens", step.tokens, "--threshold", step.threshold),
            *("--bridge", step.bridge, "--exclude-last", step.exclude_last),
            *("--out", place.folder / "analysis" / "stability.json"),
        )
    ]


def _geometry(place: Workplace, part: str, masks: MaskSet, alphas: dict[str, float], lm: Any, folder: Path) -> None:
    from lm_eval_clas.geometry.geometry_run import run_geometry, shared_languages
    from lm_eval_clas.texts.corpora import ParallelTexts

    texts = shared_languages(place.texts(part), masks)
    samples = place.recipe.analyse.geometry_samples
    few = ParallelTexts(texts.name, texts.ids[:samples], {one: lines[:samples] for one, lines in texts.texts.items()})
    bar = place.progress.add_task(f"geometry {part}", total=2 * len(few.ids) * len(few.languages))
    done = dict.fromkeys(few.languages, 0)

    def report(language: str, count: int, _: int) -> None:
        done[language] = count
        place.progress.update(bar, completed=sum(done.values()))

    step = place.recipe.profile
    options: dict[str, Any] = {"batch_size": step.batch_size, "max_tokens": step.max_tokens, "alpha": alphas}
    options |= _steering(place, part)
    run_geometry(lm.model, lm.tokenizer, few, masks, folder, name=place.model_name, report=report, **options)


def _geometry_command(place: Workplace, part: str, folder: Path) -> str:
    from lm_eval_clas.study.record import command, given

    recipe = place.recipe
    return command(
        *("clas", "geometry", "--model", place.shown_model, "--masks", _run_masks(place, part)),
        *("--corpus", recipe.parts[part].corpus, "--samples", recipe.analyse.geometry_samples),
        *given({"languages": ",".join(recipe.profile.languages or ()), "max-tokens": recipe.profile.max_tokens}),
        *given({"batch-size": recipe.profile.batch_size, "model-args": recipe.model_args, "device": recipe.device}),
        *given({name.replace("_", "-"): value for name, value in _steering(place, part).items()}),
        *("--alpha", folder / "alphas.json", "--out", folder),
    )


def _causes(place: Workplace, part: str, masks: MaskSet, comparison: Any, folder: Path) -> str:
    from transformers import AutoTokenizer

    from lm_eval_clas.geometry.causes import find_causes, tokens_per_character
    from lm_eval_clas.study.record import command

    path = folder / "geometry.json"
    remedy = "take it away, and the same command measures it again."
    geometry: Geometry | None = read_as(Geometry, path, remedy) if path.is_file() else None
    tokenizer = AutoTokenizer.from_pretrained(place.model)
    run = place.recipe.analyse.run
    found = find_causes(comparison, run, masks, tokens_per_character(tokenizer, place.texts(part)), geometry)
    write_as(found, folder / "causes.json")
    return command(
        *("clas", "causes", place.folder / "tables" / f"{comparison.family}.json", "--masks", _run_masks(place, part)),
        *("--model", place.shown_model, "--run", run, "--corpus", place.recipe.parts[part].corpus),
        *(("--geometry", path) if geometry else ()),
        *("--out", folder / "causes.json"),
    )
