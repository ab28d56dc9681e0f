"""What an engine compiles for one layout of rows is never taken from the cache for another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_engines import MISSING

from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.row_tables import RowTables
from lm_eval_clas.steering.methods.intervention import Intervention

pytest.importorskip("vllm", reason=MISSING)

USUAL: dict[str, Any] = {
    "layers": (2, 3), "rows": 2, "width": 8, "site": "mlp", "pattern": None, "place": "neurons", "operands": ("factors",),
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "other layers": {"layers": (2, 4)},
    "more rows": {"rows": 3},
    "wider rows": {"width": 16},
    "another site": {"site": "attn"},
    "a pattern": {"pattern": "*.down_proj"},
    "what is added": {"operands": ("shifts",)},
    "both": {"operands": ("factors", "shifts")},
    "what leaves the layers": {"operands": ("shifts",), "place": "outputs"},
}


def arguments(layout: str, number: float = 2.0) -> dict[str, Any]:
    own = {**USUAL, **LAYOUTS[layout]}

    def done(row: int) -> Intervention:
        numbers, ones = (np.full((5, own["width"]), one, dtype=np.float32) for one in (number + row, 1))
        return Intervention(numbers if "factors" in own["operands"] else ones, numbers if "shifts" in own["operands"] else None)

    tables = RowTables.of([(str(row), done(row)) for row in range(own["rows"])], own["layers"], own["place"])
    assert tables.room.operands == own["operands"]
    return engine_arguments(tables, own["site"], own["pattern"])


def compiled_as(given: dict[str, Any]) -> str:
    """vLLM's own name for what it compiles with a configuration."""
    from vllm.config import VllmConfig

    return str(VllmConfig(additional_config=given["additional_config"]).compute_hash())


def test_each_layout_is_compiled_by_itself_and_other_numbers_are_not() -> None:
    assert len({compiled_as(arguments(layout)) for layout in LAYOUTS}) == len(LAYOUTS)
    for layout in LAYOUTS:
        assert compiled_as(arguments(layout, number=3.0)) == compiled_as(arguments(layout))
