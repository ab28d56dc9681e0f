"""The sections about single languages, about what was run, and about how to run it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.languages.codes import english_name
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.steering.results_entry import left_alone
from lm_eval_clas.study.report.score_sections import title_of
from lm_eval_clas.study.report.sources import Sources
from lm_eval_clas.study.report.verdicts import advantage, baseline_of, by_task, own_controls, primary_of, significant
from lm_eval_clas.study.report.view import Block, Card, Code, Deck, Facts, Heading, Section, Table, TableCell
from lm_eval_clas.study.report.wording import (
    NONE,
    counted,
    language_list,
    language_text,
    layers,
    listed,
    named,
    number_text,
    probability,
    recognition,
    short,
    signed,
    steering_line,
    witnessed,
)

# Fewer items than this leave intervals of several points, and a note says so.
_FEW = 100


def language_section(sources: Sources) -> Section | None:
    """A card for each language: score, gain, chosen alpha, how it was recognised, and what is odd."""
    cards = [_card(sources, code) for code in sources.languages]
    return Section("languages", "Language by language", [Deck(cards)]) if cards else None


def _card(sources: Sources, code: str) -> Card:
    facts: list[tuple[str, str]] = []
    notes: list[str] = []
    missing: list[str] = []
    known: dict[str, None] = {}
    first = [group[0] for group in by_task(sources.comparisons.values())]
    for comparison in sources.comparisons.values():
        if code not in comparison.languages:
            missing.append(title_of(comparison, sources.comparisons))
            continue
        row = primary_of(comparison)
        name = title_of(comparison, sources.comparisons)
        facts.append((name, _scored(comparison, code)))
        notes += [f"{name}: {note}" for note in _clear(comparison, code)]
        if not any(one is comparison for one in first):
            continue  # what follows is of the task, whatever it is measured by
        notes += [f"{name}: {note}" for note in _odd(comparison, code, sources)]
        if row is not None and code != comparison.anchor:
            # Results know all tasks of a run; the row's copy, of this task alone, serves where there are none.
            if told := recognition(sources.runs.get(row.label) or row.steering, code):
                known[told] = None
            if why := left_alone(row.steering, code, comparison.family):
                notes.append(f"{name}: left alone in the run {row.label}: {why}.")
    for family, strengths in sources.tuned.items():
        if (one := strengths.get(code)) is not None:
            facts.append((f"alpha, {family}", short(one.chosen.alpha)))
            notes += [f"{family}: {note}" for note in _odd_strength(sources, code, family)]
    if known:
        facts.append(("recognised by", "; ".join(known)))
    anchors = {comparison.anchor for comparison in sources.comparisons.values()}
    profiled = []
    for part, masks in sources.masks.items():
        anchors.add(masks.anchor)
        if code not in masks.languages:
            missing.append(f"the masks of {part}" if len(sources.masks) > 1 else "the masks")
        elif (tokens := masks.config.corpus.tokens.get(code)) is not None:
            profiled.append(f"{counted(tokens, 'token')} of {masks.config.corpus.name}")
    if profiled:
        facts.append(("profiled on", "; ".join(profiled)))
    if missing:
        notes.insert(0, f"Not in {listed(missing)}.")
    if code in anchors:
        notes.insert(0, "The anchor: never steered.")
    return Card(english_name(code), code, facts, list(dict.fromkeys(notes)))


def _scored(comparison: Comparison, code: str) -> str:
    row, baseline = primary_of(comparison), baseline_of(comparison)
    cell = row.cells.get(code) if row is not None else None
    if row is None or cell is None:
        before = baseline.cells.get(code) if baseline is not None else None
        return f"{number_text(before.score, comparison.digits)} ({comparison.baseline})" if before is not None else NONE
    adjusted = f", adjusted p\u00a0{probability(cell.p_holm)}" if cell.p_holm is not None and code != comparison.anchor else ""
    items = f", {counted(cell.items, 'item')}" if cell.items is not None else ""
    score, gain = number_text(cell.score, comparison.digits), signed(cell.gain, comparison.digits)
    return f"{score} ({row.label}), gain {gain}{adjusted}{items}"


def _clear(comparison: Comparison, code: str) -> list[str]:
    """Whether a language's score surely moved, or moved where nothing steered."""
    row = primary_of(comparison)
    cell = row.cells.get(code) if row is not None else None
    if cell is None or not cell.gain:
        return []
    if code == comparison.anchor:
        return [f"anchor, but its score changed by {signed(cell.gain, comparison.digits)}."]
    way = "better" if advantage(comparison, cell.gain) > 0 else "worse"
    return [f"significantly {way} than {comparison.baseline}."] if significant(cell) else []


def _odd(comparison: Comparison, code: str, sources: Sources) -> list[str]:
    """What else is odd about a language's score."""
    row, baseline = primary_of(comparison), baseline_of(comparison)
    cell = row.cells.get(code) if row is not None else None
    if row is None or cell is None or code == comparison.anchor:
        return []
    notes = []
    rivals = [one for one in own_controls(comparison, row) if code in one.cells]
    better = [named(one.label) for one in rivals if advantage(comparison, one.cells[code].score - cell.score) > 0]
    if better:
        notes.append(
            f"{'the control' if len(better) == 1 else 'the controls'} {listed(better)}: better than {named(row.label)}."
        )
    of_method = sources.strengths.get(str(row.steering.get("method", CLAS)), {})
    tuned = of_method.get(comparison.family, {}).get(code)
    if tuned is not None and row.steering.get("alpha") in (None, "tuned") and cell.gain is not None:
        if tuned.chosen.gain > 0 > advantage(comparison, cell.gain):
            notes.append("gained on the tuning items, lost here.")
        elif tuned.chosen.alpha != 0 and cell.gain == 0:
            notes.append("steered, and the score did not move.")
    before = baseline.cells.get(code) if baseline is not None else None
    if before is not None and before.score == 0:
        notes.append(f"{comparison.baseline} scores 0.")
    if cell.items is not None and cell.items < _FEW:
        notes.append(f"only {counted(cell.items, 'item')}.")
    return notes


def _odd_strength(sources: Sources, code: str, family: str) -> list[str]:
    """What is odd about a language's strength."""
    one = sources.tuned[family][code]
    alphas = sorted({tried.alpha for tried in (*one.measured, *one.dropped)})
    if one.chosen.alpha == 0:
        return ["no strength beat alpha 0 on the tuning items."] if one.best.gain <= 0 else ["alpha 0 kept by the guard."]
    if alphas and one.chosen.alpha in (alphas[0], alphas[-1]):
        return [f"alpha {short(one.chosen.alpha)} is the end of what was tried; the best may lie beyond."]
    return []


def run_section(sources: Sources) -> Section:
    """What was run: model, masks, tasks, steering of each run."""
    blocks: list[Block] = []
    facts: list[tuple[str, str]] = []
    facts += [("Model", model) for model in dict.fromkeys(map(_model, sources.masks.values()))]
    if len(sources.parts) < 2:
        facts += [fact for masks in sources.masks.values() for fact in _masks(masks)]
    for comparison in sources.comparisons.values():
        tasks = list(comparison.tasks.values())
        shown = ", ".join(tasks[:3]) + (f" and {len(tasks) - 3} more" if len(tasks) > 3 else "")
        facts.append((f"Tasks, {title_of(comparison, sources.comparisons)}", f"{shown or NONE}; {comparison.metric}"))
    if facts:
        blocks.append(Facts(facts))
    if len(sources.parts) > 1:
        for part, masks in sources.masks.items():
            blocks += [Heading(part), Facts(_masks(masks))]
    steering: dict[str, Mapping[str, Any]] = dict(sources.runs)
    # Rows may take several runs together, so they are asked only where there are no runs.
    for comparison in () if steering else sources.comparisons.values():
        for row in comparison.rows:
            if row.kind != "cited":
                steering.setdefault(row.label, row.steering)
    if steering:
        rows = [line for label, one in steering.items() for line in _steered(label, one, sources.runs_by_family.get(label, {}))]
        if len(sources.parts) > 1:
            blocks.append(Heading("Runs"))
        blocks.append(Table("What each run steered.", ["run", "steering"], rows, prose=frozenset({1})))
    blocks += _witnessed(sources.runs)
    return Section("run", "What was run", blocks)


def _steered(label: str, steering: Mapping[str, Any], by_family: Mapping[str, Mapping[str, Any]]) -> list[list[TableCell]]:
    """A line on what a run steered, or one for each of the lines that its families of tasks have."""
    lines: dict[str, list[str]] = {}
    for family, one in by_family.items():
        lines.setdefault(steering_line(one), []).append(family)
    if len(lines) < 2:
        return [[TableCell(label), TableCell(steering_line(steering))]]
    return [[TableCell(label, ", ".join(of)), TableCell(line)] for line, of in lines.items()]


def _witnessed(steering: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """A table of what was steered in each run, by language; none where no run tells of it."""
    seen = {label: counts for label, one in steering.items() if (counts := witnessed(one))}
    if not seen:
        return []
    rows = []
    for code in dict.fromkeys(code for counts in seen.values() for code in sorted(counts)):
        cells = [TableCell(language_text(code))]
        for counts in seen.values():
            requests, positions = counts.get(code, (0, 0))
            cells.append(TableCell(f"{requests:,}", f"{positions:,} positions") if requests else TableCell(NONE))
        rows.append(cells)
    caption = (
        "Requests that the model answered while it was steered, and positions that a layer scaled meanwhile (padding counts). "
        "Answers from a cache are not among them."
    )
    return [Table(caption, ["language", *seen], rows)]


def _model(masks: MaskSet) -> str:
    model = masks.config.model
    what = "neurons" if masks.config.site == "mlp" else "attention channels"
    size, revision = model.fingerprint, f", revision {model.revision}" if model.revision else ""
    return f"{model.name} ({size.model_type}, {size.layers} layers of {size.neurons:,} {what}{revision})"


def _masks(masks: MaskSet) -> list[tuple[str, str]]:
    """What there is to say of a part's masks."""
    config = masks.config
    return [
        ("Profiled on", f"{config.corpus.name}, {config.corpus.samples} parallel texts; active means {config.activity}"),
        ("Masks", f"{masks.hash}, made {config.date} with lm-eval-clas {config.package_version}"),
        ("Languages", f"{len(config.languages)}: {language_list(config.languages)}"),
        ("Anchor", f"{english_name(config.anchor)}, never steered"),
        ("Steering", f"beta {short(config.beta)}, gamma {short(config.gamma)}, layers {layers(config.bridge_layers)}"),
    ]


def again_section(sources: Sources) -> Section | None:
    """The exact commands, how long they took, and the versions of packages."""
    blocks: list[Block] = []
    stages = sources.stages
    if stages:
        rows = [[TableCell(one.stage), TableCell(_moment(one.started)), TableCell(_duration(one.seconds))] for one in stages]
        blocks.append(Table("Finished stages.", ["stage", "started", "took"], rows, prose=frozenset({1})))
        commands = "\n\n".join(f"# {one.stage}\n" + "\n".join(one.commands) for one in stages if one.commands)
        if commands:
            blocks += [Heading("Commands"), Code(commands)]
        versions: dict[str, dict[str, list[str]]] = {}
        for one in stages:
            for package, version in one.versions.items():
                versions.setdefault(package, {}).setdefault(version, []).append(one.stage)
        if versions:
            facts = [
                (package, "; ".join(f"{version} ({', '.join(where)})" for version, where in found.items()))
                if len(found) > 1
                else (package, next(iter(found)))
                for package, found in sorted(versions.items())
            ]
            blocks += [Heading("Versions"), Facts(facts)]
    if sources.recipe:
        blocks += [Heading("Recipe"), Code(sources.recipe.rstrip())]
    return Section("again", "Commands and versions", blocks) if blocks else None


def _moment(text: str) -> str:
    """The date and minute of what `clock.py` writes; anything else as it is."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:\+00:00|Z)$", r"\1 \2 UTC", text)


def _duration(seconds: float) -> str:
    if not 0 <= seconds < 1e9:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
