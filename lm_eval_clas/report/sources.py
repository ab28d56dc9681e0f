"""What the folder of a study holds, read and checked: everything that its report can show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lm_eval_clas.comparison import Comparison
from lm_eval_clas.errors import ClasError
from lm_eval_clas.findings import Causes, Geometry, Stability
from lm_eval_clas.mask_config import CONFIG_FILE
from lm_eval_clas.masks import MaskSet
from lm_eval_clas.study import StageRecord
from lm_eval_clas.tuned import Tuned

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """What was found. Whatever a study does not have is None or empty.

    Attributes:
        folder: of the study.
        recipe: the text of `recipe.yaml`.
        stages: those that are finished, in the order in which they started.
        comparisons: by the name of their file, without its ending.
        masks: of `masks/`.
        tuned: the strengths in the masks, or else in `tune/tuned.json`.
        runs: `config.clas` of the results, by the name of the run's folder; empty for models that are not `hf-clas`.
        geometry, stability, causes: the analyses; stability and causes by the name of their file.
        pictures: the PNG files among the analyses, but for those that the report draws itself.
    """

    folder: Path
    recipe: str | None = None
    stages: list[StageRecord] = field(default_factory=list)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    masks: MaskSet | None = None
    tuned: Tuned = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    geometry: Geometry | None = None
    stability: dict[str, Stability] = field(default_factory=dict)
    causes: dict[str, Causes] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)

    @property
    def languages(self) -> list[str]:
        """Every language that a comparison, the masks, or tuning has, the comparisons' first."""
        found: dict[str, None] = {}
        for comparison in self.comparisons.values():
            found |= dict.fromkeys(comparison.languages)
        if self.masks is not None:
            found |= dict.fromkeys(self.masks.languages)
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
    masks = MaskSet.load(folder / "masks") if (folder / "masks" / CONFIG_FILE).is_file() else None
    tuned = masks.config.tuned if masks is not None else {}
    if not tuned and (folder / "tune" / "tuned.json").is_file():
        tuned = _read(folder / "tune" / "tuned.json", Tuned)
    geometry = folder / "analysis" / "geometry.json"
    records: list[StageRecord] = [_read(path, StageRecord) for path in _files(folder, "stages/*.json")]
    found = Sources(
        folder=folder,
        recipe=_recipe(folder / "recipe.yaml"),
        stages=sorted((one for one in records if one.finished), key=lambda one: one.started),
        comparisons={path.stem: _read(path, Comparison) for path in _files(folder, "tables/*.json")},
        masks=masks,
        tuned=tuned,
        runs=_runs(folder / "results"),
        geometry=_read(geometry, Geometry) if geometry.is_file() else None,
        stability={path.stem: _read(path, Stability) for path in _files(folder, "analysis/stability*.json")},
        causes={path.stem: _read(path, Causes) for path in _files(folder, "analysis/causes*.json")},
        pictures=[path for path in _files(folder, "analysis/*.png") if path.stem != "categories"],
    )
    if found == Sources(folder=folder):
        raise ClasError(f"'{folder}' holds nothing that a report could show; give the folder that 'clas paper' wrote.")
    return found


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _read(path: Path, kind: type[T] | Any) -> T:
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    remedy = "run the stage that writes it again, or take it away to leave it out of the report."
    try:
        return adapter.validate_json(path.read_bytes())
    except OSError as error:
        raise ClasError(f"'{path}' cannot be read ({error.strerror or error}); {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ClasError(f"'{path}' is damaged: {where + ': ' if where else ''}{first['msg']}; {remedy}") from error


def _recipe(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    except OSError as error:
        raise ClasError(f"'{path}' cannot be read ({error.strerror or error}); make it readable.") from error


def _runs(folder: Path) -> dict[str, dict[str, Any]]:
    """`config.clas` of the newest results file under each run's folder."""
    runs = {}
    for run in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = sorted(run.rglob("results_*.json"), key=lambda path: path.name)
        if files:
            content: dict[str, Any] = _read(files[-1], dict[str, Any])
            config = content.get("config")
            steering = config.get("clas") if isinstance(config, dict) else None
            # The harness puts what a model tells of itself into `config`; other models tell of no steering.
            runs[run.name] = steering if isinstance(steering, dict) else {}
    return runs
