"""What the folder of a study holds, read and checked: everything that its report can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.results_files import runs_in
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.comparing.runs import Run
from lm_eval_clas.comparing.task_families import families
from lm_eval_clas.disk.checked_json import read_as
from lm_eval_clas.disk.checked_yaml import parse_yaml
from lm_eval_clas.geometry.causes import Causes
from lm_eval_clas.geometry.measurements import Geometry
from lm_eval_clas.masks.mask_config import MASKS_CONFIG_FILE
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Tuned
from lm_eval_clas.neurons.agreement import Stability
from lm_eval_clas.steering.results_entry import joined
from lm_eval_clas.study.record import StageRecord
from lm_eval_clas.study.report.verdicts import controls_of

Content = TypeVar("Content")


@dataclass(frozen=True)
class Sources:
    """What was found. Whatever a study does not have is None or empty.

    Attributes:
        folder: of the study.
        recipe: the text of `recipe.yaml`.
        stages: those that are finished, in the order in which they started.
        comparisons: by the name of their file, without its ending; without those of `against`.
        against: comparisons whose baseline is a control of another one of the family: they test the method against it.
        masks: by part: of `tune/PART/masks`, or else of `masks/PART`.
        tuned: the strengths in the masks of every part, or else in its `tune/PART/tuned.json`.
        tuned_variants: those of variants of the masks, by variant and method.
        runs: `config.clas` of the results, by the name of the run's folder; empty for models that are not `hf-clas`.
        runs_by_family: the same of each family of tasks by itself.
        geometry, causes: the analyses, by part; stability: by the name of its file.
        pictures: the PNG files among the analyses of a part, but for those that the report draws itself.
    """

    folder: Path
    recipe: str | None = None
    stages: list[StageRecord] = field(default_factory=list)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    against: list[Comparison] = field(default_factory=list)
    masks: dict[str, MaskSet] = field(default_factory=dict)
    tuned: Tuned = field(default_factory=dict)
    tuned_variants: dict[tuple[str, str], Tuned] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs_by_family: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    geometry: dict[str, Geometry] = field(default_factory=dict)
    stability: dict[str, Stability] = field(default_factory=dict)
    causes: dict[str, Causes] = field(default_factory=dict)
    pictures: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """The parts that have masks or an analysis."""
        return sorted(self.masks.keys() | self.geometry.keys() | self.pictures.keys() | self.causes.keys())

    @property
    def strengths(self) -> dict[str, Tuned]:
        """Strengths of all parts together, by method: CLAS's, others' that the masks have, `clas, lape` of a variant."""
        found: dict[str, Tuned] = {CLAS: self.tuned} if self.tuned else {}
        for _, masks in sorted(self.masks.items()):
            for method, tuned in masks.config.tuned_methods.items():
                found[method] = _joined_strengths([found.get(method, {}), tuned])
        return found | {f"{method}, {variant}": tuned for (variant, method), tuned in self.tuned_variants.items()}

    @property
    def languages(self) -> list[str]:
        """Every language that a comparison, the masks, or tuning has, the comparisons' first."""
        found: dict[str, None] = {}
        for comparison in self.comparisons.values():
            found |= dict.fromkeys(comparison.languages)
        for masks in self.masks.values():
            found |= dict.fromkeys(masks.languages)
        for by_language in self.tuned.values():
            found |= dict.fromkeys(by_language)
        return list(found)


def read_study(folder: Path) -> Sources:
    """Reads a study's folder, finished or not.

    Raises:
        ClasError: there is no such folder, nothing in it can be shown, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise ClasError(f"There is no folder '{folder}'; give the one that 'clas paper' wrote.")
    recipe = _recipe(folder / "recipe.yaml")
    masks = _masks(folder, recipe)
    found_tables = sorted(_files(folder, "tables/*.json"), key=lambda path: path.stem)  # FAMILY before FAMILY-METRIC
    tables: dict[str, Comparison] = {path.stem: _read(path, Comparison) for path in found_tables}
    comparisons = {name: one for name, one in tables.items() if not _against_control(name, one, tables.values())}
    pictures: dict[str, list[Path]] = {}
    for path in _files(folder, "analysis/*/*.png"):
        if path.stem != "categories":
            pictures.setdefault(path.parent.name, []).append(path)
    by_label = {place.name: runs_in(place, place.name) for place in sorted(folder.glob("results/*")) if place.is_dir()}
    records: list[StageRecord] = [_read(path, StageRecord) for path in _files(folder, "stages/*.json")]
    found = Sources(
        folder=folder,
        recipe=recipe,
        stages=sorted((one for one in records if one.finished), key=lambda one: one.started),
        comparisons=comparisons,
        against=[one for name, one in tables.items() if name not in comparisons],
        masks=masks,
        tuned=_tuned(folder, masks),
        tuned_variants=_tuned_variants(folder),
        runs={label: joined([part.steering for part in parts]) for label, parts in by_label.items() if parts},
        runs_by_family={label: _by_family(parts) for label, parts in by_label.items() if parts},
        geometry={path.parent.name: _read(path, Geometry) for path in _files(folder, "analysis/*/geometry.json")},
        stability={path.stem: _read(path, Stability) for path in _files(folder, "analysis/stability*.json")},
        causes={path.parent.name: _read(path, Causes) for path in _files(folder, "analysis/*/causes.json")},
        pictures=pictures,
    )
    if found == Sources(folder=folder):
        raise ClasError(f"'{folder}' holds nothing that a report could show; give the folder that 'clas paper' wrote.")
    return found


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _masks(folder: Path, recipe: str | None) -> dict[str, MaskSet]:
    """The masks of each part: with tuned strengths, where they are tuned. Those of variants are left out."""
    untuned = {path.parent.name: path.parent for path in _files(folder, f"masks/*/{MASKS_CONFIG_FILE}")}
    tuned = {path.parents[1].name: path.parent for path in _files(folder, f"tune/*/masks/{MASKS_CONFIG_FILE}")}
    found = untuned | tuned
    parts = _named(recipe, "parts") or list(found)
    variants = {f"{part}-{variant}" for part in parts for variant in _named(recipe, "variants")} - set(parts)
    return {part: MaskSet.load(path) for part, path in sorted(found.items()) if part not in variants}


def _named(recipe: str | None, key: str) -> list[str]:
    """The names under one of a recipe's keys; none if it is no recipe of ours, as its text is shown all the same."""
    try:
        return list(map(str, _mapping(_mapping(parse_yaml(recipe or "")).get(key))))
    except ValueError:
        return []


def _tuned(folder: Path, masks: Mapping[str, MaskSet]) -> Tuned:
    """The strengths of every part together."""
    parts: dict[str, Tuned] = {path.parent.name: _read(path, Tuned) for path in _files(folder, "tune/*/tuned.json")}
    parts |= {part: one.config.tuned for part, one in masks.items() if one.config.tuned}
    return _joined_strengths(tuned for _, tuned in sorted(parts.items()))


def _tuned_variants(folder: Path) -> dict[tuple[str, str], Tuned]:
    """The strengths of variants, by variant and method, of every part together."""
    found: dict[tuple[str, str], Tuned] = {}
    for place in sorted(folder.glob("tune/*/variants/*")):
        for path in _files(place, "tuned.json") + _files(place, "methods/*/tuned.json"):
            of = (place.name, CLAS if path.parent == place else path.parent.name)
            found[of] = _joined_strengths([found.get(of, {}), _read(path, Tuned)])
    return found


def _joined_strengths(parts: Iterable[Tuned]) -> Tuned:
    """Those of several parts; of the same family and language, the last one's."""
    found: Tuned = {}
    for part in parts:
        for family, by_language in part.items():
            found[family] = found.get(family, {}) | by_language
    return found


def _against_control(name: str, comparison: Comparison, all_of_them: Iterable[Comparison]) -> bool:
    """Whether a table is `FAMILY-against-LABEL`, and its baseline a control of another table of the family."""
    controls = {row.label for other in all_of_them if other.family == comparison.family for row in controls_of(other)}
    return "-against-" in name and comparison.baseline in controls


def _read(path: Path, kind: type[Content] | Any) -> Content:
    found: Content = read_as(kind, path, "run the stage that writes it again, or take it away to leave it out of the report.")
    return found


def _recipe(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    except OSError as error:
        raise ClasError(f"'{path}' cannot be read ({error.strerror or error}); make it readable.") from error


def _by_family(parts: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """`config.clas` of what one label holds: masks, strengths and layers may be others for each family of tasks."""
    return {
        family: joined([part.steering for part in parts if part.tasks.keys() & set(tasks.values())])
        for family, tasks in families(parts).items()
    }


def _mapping(value: Any) -> dict[str, Any]:
    """A value that should be a mapping, or an empty one."""
    return value if isinstance(value, dict) else {}
