"""From a study's folder to one HTML file."""

from __future__ import annotations

from pathlib import Path

import jinja2

from lm_eval_clas.base.version import __version__
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.study.report.analysis_sections import causes_section, geometry_section, stability_section
from lm_eval_clas.study.report.first_screen import below_the_headline
from lm_eval_clas.study.report.run_sections import again_section, language_section, run_section
from lm_eval_clas.study.report.score_sections import controls_section, gain_panels, results_section, significance_section
from lm_eval_clas.study.report.sources import Sources, read_study
from lm_eval_clas.study.report.statements import first_minute
from lm_eval_clas.study.report.strength_sections import neurons_section, strengths_section
from lm_eval_clas.study.report.view import Block, Bullets, Report, Section, Text
from lm_eval_clas.study.report.wording import listed


def write_report(folder: Path, out: Path | None = None) -> tuple[Path, list[str]]:
    """Writes the report of a study, finished or not.

    Args:
        folder: of the study, as `clas paper` writes it.
        out: the HTML file; default: `report.html` in the folder.

    Returns:
        The file, and one line for each section that was left out because the study does not have it.

    Raises:
        ClasError: no such folder, nothing to show, a damaged file, matplotlib is not installed, or the file cannot be
            written.
    """
    out = folder / "report.html" if out is None else out
    view = report_of(read_study(folder))
    write_text(out, render(view))
    return out, view.left_out


def report_of(sources: Sources) -> Report:
    """Everything on the page, in its order."""
    made, left_out = [], []
    summary, headed_by = _summary(sources)
    comparisons, headed = sources.comparisons, len(sources.parts) > 1
    parts: list[tuple[Section | None, str]] = [
        (
            run_section(sources) if sources.masks or sources.runs or comparisons else None,
            "what was run (no masks/, results/, tables/)",
        ),
        (results_section(sources, headed_by) if comparisons else None, "results (no tables/FAMILY.json)"),
        (controls_section(sources), "alpha 0 and controls (no control in tables/FAMILY.json)"),
        (significance_section(comparisons), "significance (no p-values in tables/FAMILY.json)"),
        (
            strengths_section(sources.strengths, sources.folder) if sources.strengths else None,
            "strengths (no tune/PART/tuned.json, none in masks)",
        ),
        (neurons_section(sources.masks, headed) if sources.masks else None, "neurons and bridge layers (no masks/PART/)"),
        (
            geometry_section(sources.geometry, sources.pictures, headed, sources.causes)
            if sources.geometry or sources.pictures
            else None,
            "what moves inside (no analysis/PART/geometry.json)",
        ),
        (
            stability_section(sources.stability) if sources.stability else None,
            "stability of masks (no analysis/stability.json)",
        ),
        (causes_section(sources.causes) if sources.causes else None, "candidate causes (no analysis/PART/causes.json)"),
        (language_section(sources), "languages (no tables/, masks/ or tune/)"),
        (again_section(sources), "commands and versions (no stages/)"),
    ]
    for section, otherwise in parts:
        if section is None:
            left_out.append(otherwise)
        else:
            made.append(section)
    models = dict.fromkeys(one.config.model.short_name for one in sources.masks.values())
    model = listed(list(models)) or sources.folder.resolve().name
    dates = [one.started[:10] for one in sources.stages]
    when = f"{dates[0]} to {dates[-1]}" if dates and dates[0] != dates[-1] else "".join(dates[:1])
    subtitle = "; ".join(part for part in (", ".join(dict.fromkeys(one.family for one in comparisons.values())), when) if part)
    return Report(f"Steering {model}", subtitle, summary, made, left_out, __version__)


def _summary(sources: Sources) -> tuple[list[Block], Comparison | None]:
    """The first screen, and the comparison that it draws."""
    comparisons = sources.comparisons
    if not comparisons:
        nothing = "No scores have been compared yet, so nothing can be said about whether steering helps."
        return [Text(nothing, lead=True)], None
    sentence, picked_from, drawn = first_minute(comparisons, sources.against)
    points = below_the_headline(list(comparisons.values()), sources.against)
    blocks: list[Block] = [Text(sentence, lead=True), *([Text(picked_from)] if picked_from else [])]
    stem = next((name for name, one in comparisons.items() if one is drawn), "")
    if drawn is not None and (panels := gain_panels(drawn, stem)) is not None:
        blocks.append(panels)  # before the sentences, which are long where many methods were compared
    return [*blocks, Bullets(points)], drawn


def render(view: Report) -> str:
    """The page. Everything but the pictures' markup is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lm_eval_clas.study.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=view)
