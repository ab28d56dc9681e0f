"""Folders of studies with made-up numbers: seeded, of any number of languages, written through the real formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lm_eval_clas import MaskSet
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.evidence.correlation import Correlation
from lm_eval_clas.geometry.causes import Causes
from lm_eval_clas.geometry.measurements import Geometry, Measurement
from lm_eval_clas.masks.mask_set import CorpusSource, MaskConfig, ModelSource
from lm_eval_clas.masks.strengths import TriedSetting, TunedStrength
from lm_eval_clas.neurons.agreement import Agreement, Stability

_CODES = (
    "en hi de zh sw ar es fr ru tr vi th el ro bg ur bn ta te ja ko id ms fa he pl uk nl sv fi da no cs hu it pt ca qu yo ha"
)
CODES = _CODES.split(" ")
FAMILIES = {"clas_xquad": ("f1_lang", "permutation"), "clas_xnli": ("acc", "exact McNemar")}
PARTS = {"xquad": "clas_xquad", "xnli": "clas_xnli"}
ALPHAS = (-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
LAYERS, NEURONS = 18, 64


def write_study(
    folder: Path, languages: int, *, layers: int = LAYERS, gain: float = 0.6, seed: int = 0, name: str = "", parts: int = 2
) -> Path:
    """A finished study: parts with a task, masks, tuned strengths, geometry and causes; five runs, stability, stages.

    The second part lacks the last language, if there are more than two.

    Args:
        folder: to write.
        languages: how many, English among them.
        layers: of the model.
        gain: what CLAS gains on average, in points.
        seed: of all numbers.
        parts: how many.
        name: what stands in every free text beside the ordinary words, to see what becomes of it.
    """
    rng = np.random.default_rng(seed)
    for order, (part, family) in enumerate(list(PARTS.items())[:parts]):
        codes = CODES[: max(2, languages - order)]
        masks = make_masks(codes, layers, rng, name, part)
        masks.save(folder / "masks" / part)
        tuned = masks.with_tuned({family: {code: make_strength(family, code, rng) for code in codes[1:]}})
        tuned.save(folder / "tune" / part / "masks")
        write_text(folder / "tune" / part / "tuned.json", json.dumps(tuned_json(tuned)))
        made = make_comparison(family, codes, masks, gain, rng, name)
        dump(folder / "tables" / f"{family}.json", made)
        for control in ("uniform", "random"):
            dump(folder / "tables" / f"{family}-against-{control}.json", rebased(made, f"{control}{name}"))
        dump(folder / "analysis" / part / "causes.json", make_causes(family, codes, rng, name))
        dump(folder / "analysis" / part / "geometry.json", make_geometry(codes, masks, rng, name, part))
        draw_components(folder / "analysis" / part / "geometry.png", codes, rng)
        draw_components(folder / "analysis" / part / "categories.png", codes, rng)
        for code in codes:
            task, clas = f"{family}_{code}", {**make_steering([code], masks), "tuned": {family: {}}}
            for run, config in (("clas", {"model": "hf-clas", "clas": clas}), ("hf", {"model": "hf"})):
                result = {"config": config, "results": {task: {f"{FAMILIES[family][0]},none": 0.5}}}
                path = folder / "results" / run / task / "model" / "results_2026-11-23T10-00-00.json"
                write_text(path, json.dumps(result))
    dump(folder / "analysis" / "stability.json", make_stability(CODES[:languages], layers, rng, name))
    for number, stage in enumerate(("profile", "masks", "tune", "evaluate")):
        write_text(folder / "stages" / f"{stage}.json", json.dumps(make_stage(stage, number, name)))
    write_text(folder / "recipe.yaml", f"model: google/gemma-3-270m{name}\ntasks: [clas_xquad, clas_xnli]\nlimit: 200\n")
    return folder


def dump(path: Path, content: Comparison | Causes | Geometry | Stability) -> None:
    write_text(path, content.model_dump_json(indent=1))


def make_masks(codes: list[str], layers: int, rng: np.random.Generator, name: str = "", part: str = "xquad") -> MaskSet:
    shares = np.linspace(0.3, 0.85, layers)[None, :, None]
    active = rng.random((len(codes), layers, NEURONS)) < shares * (rng.random((1, layers, NEURONS)) < 0.95)
    config = MaskConfig(
        model=ModelSource(
            name=f"google/gemma-3-270m{name}",
            fingerprint=ModelFingerprint(
                model_type="gemma3_text", layers=layers, neurons=NEURONS, hidden_size=32, config_hash="0" * 16
            ),
        ),
        languages=codes,
        anchor="en",
        corpus=CorpusSource(name=f"{part}{name}", sha256="0" * 64, samples=100, tokens=dict.fromkeys(codes, 5000)),
        bridge_layers=[layers - 5, layers - 4, layers - 3],
        bridge_rule=f"auto: the layers around layer {layers - 4} that reach 90% of it{name}",
        date="2026-11-23",
    )
    return MaskSet(config, active)


def tuned_json(masks: MaskSet) -> dict[str, object]:
    """What `tuned.json` of a tuning run holds."""
    return {
        family: {code: one.model_dump() for code, one in strengths.items()} for family, strengths in masks.config.tuned.items()
    }


def make_strength(family: str, code: str, rng: np.random.Generator) -> TunedStrength:
    measured = []
    for alpha in ALPHAS:
        gain = 0.0 if alpha == 0 else float(rng.normal(0.01, 0.01) - 0.002 * alpha**2)
        width = 0.0 if alpha == 0 else 0.02
        bounds = {"gain": gain, "low": gain - width, "high": gain + width}
        measured.append(TriedSetting(alpha=alpha, beta=0.4, gamma=0.2, layers=[13, 14, 15], score=0.3 + gain, **bounds))
    best = max(measured, key=lambda one: one.gain)
    return TunedStrength(
        chosen=best,
        best=best,
        p_value=float(rng.random()),
        objective="metric",
        metric=FAMILIES[family][0],
        guarded=False,
        shared=False,
        tasks=[f"{family}_tune_{code}"],
        items=200,
        items_sha256="0" * 64,
        measured=measured,
    )


def make_steering(codes: list[str], masks: MaskSet, method: str = "clas") -> dict[str, object]:
    return {
        "method": method,
        "masks_hash": masks.hash,
        "anchor": "en",
        "alpha": "tuned",
        "beta": 0.4,
        "gamma": 0.2,
        "layers": list(masks.bridge_layers),
        "specific_scope": "all",
        "partial_scope": "all",
        "seed": 0,
        "languages": {code: {"requests": 200, "recognized": {"doc": 200}} for code in codes},
        "left_alone": {"en": "anchor"},
    }


def make_comparison(
    family: str, codes: list[str], masks: MaskSet, gain: float, rng: np.random.Generator, name: str = ""
) -> Comparison:
    metric, test = FAMILIES[family]
    base = {code: float(rng.uniform(15, 60)) for code in codes}
    rows = [
        Row(
            label=f"hf{name}",
            kind="baseline",
            cells={code: LanguageCell(score=base[code], items=871) for code in codes},
            average=float(np.mean(list(base.values()))),
        )
    ]
    for method, kind, shift in (
        ("clas", "method", gain), ("uniform", "control", gain / 2), ("random", "control", 0.0), ("int-mu", "method", -2.0),
    ):  # fmt: skip
        gains = {code: 0.0 if code == "en" else float(rng.normal(shift, 0.8)) for code in codes}
        average = float(np.mean(list(gains.values())))
        p_values = {code: float(np.exp(-3 * abs(value))) for code, value in gains.items()}
        cells = {
            code: LanguageCell(score=base[code] + value, items=871, gain=value)
            if code == "en"
            else LanguageCell(
                score=base[code] + value, items=871, gain=value, p_value=p_values[code],
                p_holm=min(1.0, p_values[code] * (len(codes) - 1)),
            )
            for code, value in gains.items()
        }  # fmt: skip
        small = [code for code in codes if (cells[code].p_holm or 1) < 0.05]
        rows.append(
            Row(
                label=f"{method}{name}",
                kind=kind,
                cells=cells,
                average=(rows[0].average or 0) + average,
                gain=average,
                low=average - 0.5,
                high=average + 0.5,
                percent=100 * average / (rows[0].average or 1),
                losses=sum(value < 0 for value in gains.values()),
                significant_losses=sum(gains[code] < 0 for code in small),
                significant_gains=sum(gains[code] > 0 for code in small),
                steering=make_steering(codes, masks, method),
            )
        )
    rows.append(Row(label=f"paper{name}", kind="cited", cells={}, gain=0.94, source=f"arXiv 2601.16390{name}"))
    return Comparison(
        family=f"{family}{name}",
        tasks={code: f"{family}_{code}" for code in codes},
        metric=metric,
        unit="points",
        test=test,
        baseline=f"hf{name}",
        languages=codes,
        anchor="en",
        average_languages=codes,
        rows=rows,
        notes=[f"Two items were dropped{name}."],
    )


def rebased(comparison: Comparison, label: str) -> Comparison:
    """The same runs against another of them, as `clas table --baseline` has it; p-values and intervals are made up."""
    base = next(row for row in comparison.rows if row.label == label)
    rows = [base.model_copy(update={"kind": "baseline", "gain": None, "low": None, "high": None})]
    for row in comparison.rows:
        if row.kind == "cited" or row is base:
            continue
        cells = {
            code: LanguageCell(score=cell.score, items=871, gain=cell.score - base.cells[code].score, p_value=0.01, p_holm=0.03)
            for code, cell in row.cells.items()
        }
        lead = (row.average or 0) - (base.average or 0)
        kind = "method" if row.kind == "baseline" else row.kind
        rows.append(row.model_copy(update={"kind": kind, "cells": cells, "gain": lead, "low": lead - 0.5, "high": lead + 0.5}))
    return comparison.model_copy(update={"baseline": label, "rows": rows})


def make_geometry(codes: list[str], masks: MaskSet, rng: np.random.Generator, name: str = "", part: str = "xquad") -> Geometry:
    layers = len(masks.categories)
    measurements = []
    for pooling in ("mean", "last"):
        for steered in (False, True):
            for layer in range(layers + 1):
                rise = layer / layers
                for place, code in enumerate(codes[1:]):
                    noise = 0.01 * rng.random() + 0.02 * steered * (layer > layers - 5) + 0.2 * place / len(codes)
                    for measure, value in (("cosine", 0.4 + 0.3 * rise), ("retrieval", 0.7 * rise), ("centroid_distance", 0.5)):
                        measurements.append(
                            Measurement(
                                measure=measure, pooling=pooling, steered=steered, layer=layer, language=code,
                                value=float(value + noise),
                            )
                        )  # fmt: skip
                measurements.append(
                    Measurement(
                        measure="silhouette", pooling=pooling, steered=steered, layer=layer, language=None,
                        value=float(0.4 - 0.3 * rise),
                    )
                )  # fmt: skip
    return Geometry(
        model="google/gemma-3-270m",
        masks_hash=masks.hash,
        corpus=f"{part}{name}",
        corpus_sha256="0" * 64,
        items=100,
        languages=codes,
        anchor="en",
        bridge_layers=list(masks.bridge_layers),
        steering={"alpha": 1.0},
        measurements=measurements,
    )


def make_stability(codes: list[str], layers: int, rng: np.random.Generator, name: str = "") -> Stability:
    def agreements() -> list[Agreement]:
        found = []
        for layer in (None, *range(layers)):
            for category in ("dead", "specific", "partial", "all"):
                values = rng.random(3)
                found.append(
                    Agreement(layer=layer, category=category, jaccard=values[0], jaccard_chance=values[1], kappa=values[2])
                )
            found.append(Agreement(layer=layer, category="any", kappa=float(rng.random())))
        return found

    bridge = [layers - 5, layers - 4, layers - 3]
    return Stability(
        a=f"xquad{name}", b="xnli", languages=codes, bridge_a=bridge, bridge_b=bridge[1:], agreements=agreements(),
        ceiling_of="xquad", ceiling=agreements(),
    )  # fmt: skip


def make_causes(family: str, codes: list[str], rng: np.random.Generator, name: str = "") -> Causes:
    names = ("baseline score", "tokens per character", "share of specific neurons", "overlap with the anchor")
    few = [f"{len(codes) - 1} languages are too few to tell anything."] if len(codes) < 10 else []
    correlations = []
    for one in names:
        if len(codes) < 4:
            correlations.append(Correlation(cause=f"{one}{name}", effect="gain", n=len(codes) - 1, warnings=few))
            continue
        value = float(rng.uniform(-0.6, 0.6))
        ends = {"low": value - 0.3, "high": value + 0.3, "p": float(rng.random())}
        numbers = {f"{kind}_{end}": number for kind in ("pearson", "spearman") for end, number in ends.items()}
        correlations.append(
            Correlation(
                cause=f"{one}{name}", effect="gain", n=len(codes) - 1, pearson=value, spearman=value, warnings=few, **numbers
            )
        )
    rows = {code: {"gain": float(rng.normal()), **{one: float(rng.random()) for one in names}} for code in codes[1:]}
    return Causes(family=f"{family}{name}", run="clas", rows=rows, correlations=correlations)


def make_stage(stage: str, number: int, name: str = "") -> dict[str, object]:
    return {
        "stage": f"{stage}{name}",
        "inputs": "0" * 64,
        "finished": True,
        "started": f"2026-11-23T0{number}:00:00",
        "seconds": 61.5 * (number + 1),
        "commands": [f"clas {stage} --model google/gemma-3-270m --out study/{stage} --include-path {'deep/' * 20}{name}"],
        "versions": {"lm_eval": "0.4.13", "torch": "2.13.0", "transformers": f"5.0.{number}{name}"},
    }


def draw_components(path: Path, codes: list[str], rng: np.random.Generator) -> None:
    from lm_eval_clas.drawing.figures import new_figure, save

    figure = new_figure(6, 4)
    axes = figure.add_subplot()
    for _ in codes:
        axes.scatter(*rng.normal(size=(2, 100)), s=4)
    save(figure, path)
