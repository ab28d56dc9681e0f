"""Comparisons with the average gains that a test asks for: CLAS, its two controls, and the unsteered model."""

from __future__ import annotations

import numpy as np
from synthetic_study import make_comparison, make_masks, rebased

from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.study.report.verdicts import primary_of


def comparison(gain: float, low: float | None, high: float | None, uniform: float = 0.0) -> Comparison:
    """A comparison of three languages whose method has this average gain."""
    codes = ["en", "hi", "de"]
    made = make_comparison("clas_xnli", codes, make_masks(codes, 8, np.random.default_rng(0)), 0, np.random.default_rng(0))
    rows = {row.label: row for row in made.rows}
    clas = rows["clas"].model_copy(update={"gain": gain, "low": low, "high": high, "percent": 1.0})
    controls = [rows["uniform"].model_copy(update={"gain": uniform}), rows["random"].model_copy(update={"gain": -1.0})]
    return made.model_copy(update={"rows": [rows["hf"], clas, *controls]})


def with_leads(made: Comparison, **leads: float) -> list[Comparison]:
    """Tests of CLAS against each control, with an interval of 0.5 to both sides of its lead."""
    tested = [rebased(made, label) for label in leads]
    for one in tested:
        row = primary_of(one)
        assert row is not None
        lead = leads[one.baseline]
        row.gain, row.low, row.high = lead, lead - 0.5, lead + 0.5
    return tested
