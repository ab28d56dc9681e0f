"""What `vllm-clas` does with each family, as it was tried: `data/tried_in_vllm.json`, made by a script of the same name."""

from __future__ import annotations

from functools import cache

from lm_eval_clas.disk.checked_json import Strict, read_json
from lm_eval_clas.disk.files import PACKAGE

CELLS_FILE = PACKAGE / "data" / "tried_in_vllm.json"
# What a cell begins with; one of `refused`, too, and none of what is silently wrong.
WORKS, NOT_THERE, BREAKS, NOT_TRIED = "steered", "not in vLLM", "vLLM fails", "not tried"
# What one of `steered` may have behind it.
BY_TRANSFORMERS, OTHERWISE = "by transformers' code", "vLLM itself differs from transformers"


class TriedInVLLM(Strict):
    """What was tried, and with which versions: an environment with vLLM has its own transformers.

    Attributes:
        vllm, transformers: the versions.
        cells: by family, what `cell_in_vllm` said.
    """

    vllm: str
    transformers: str
    cells: dict[str, str]

    def cell(self, family: str) -> str:
        """What was found of a family."""
        return self.cells.get(family, NOT_TRIED)

    @property
    def versions(self) -> str:
        """In words."""
        return f"vLLM {self.vllm} and transformers {self.transformers}"


@cache
def tried_in_vllm() -> TriedInVLLM:
    """What the package's file says."""
    return TriedInVLLM.model_validate(read_json(CELLS_FILE))
