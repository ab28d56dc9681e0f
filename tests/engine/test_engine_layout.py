"""What an engine compiles for one layout of rows is never taken from the cache for another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_engines import MISSING

from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.factor_tables import FactorTables

pytest.importorskip("vllm", reason=MISSING)

LAYOUTS: dict[str, tuple[tuple[int, ...], int, int, Any, str | None]] = {
    "as it is": ((2, 3), 2, 8, "mlp", None),
    "other layers": ((2, 4), 2, 8, "mlp", None),
    "more rows": ((2, 3), 3, 8, "mlp", None),
    "wider rows": ((2, 3), 2, 16, "mlp", None),
    "another site": ((2, 3), 2, 8, "attn", None),
    "a pattern": ((2, 3), 2, 8, "mlp", "*.down_proj"),
}


def arguments(layout: str, factor: float = 2.0) -> dict[str, Any]:
    layers, rows, neurons, site, pattern = LAYOUTS[layout]
    factors = [(str(row), torch.full((5, neurons), factor + row)) for row in range(rows)]
    return engine_arguments(FactorTables.of(factors, layers), site, pattern)


def compiled_as(given: dict[str, Any]) -> str:
    """vLLM's own name for what it compiles with a configuration."""
    from vllm.config import VllmConfig

    return str(VllmConfig(additional_config=given["additional_config"]).compute_hash())


def test_each_layout_is_compiled_by_itself_and_other_factors_are_not() -> None:
    assert len({compiled_as(arguments(layout)) for layout in LAYOUTS}) == len(LAYOUTS)
    assert compiled_as(arguments("as it is", factor=3.0)) == compiled_as(arguments("as it is"))
