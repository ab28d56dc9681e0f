"""What `vllm-clas` does with each family, from trying every family inside vLLM, on a CPU. Run it where vLLM is installed:

    VLLM_ENVIRONMENT/bin/python docs/mkdocs/tried_in_vllm.py              # those that were not tried with these versions
    VLLM_ENVIRONMENT/bin/python docs/mkdocs/tried_in_vllm.py --anew       # all
    VLLM_ENVIRONMENT/bin/python docs/mkdocs/tried_in_vllm.py llama opt    # these again

Writes `lm_eval_clas/data/tried_in_vllm.json` after each family, so that it can be stopped and started again; then
`python docs/mkdocs/families.py` makes the page.
"""

from __future__ import annotations

import argparse
import json
import warnings
from importlib.metadata import version
from pathlib import Path

from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.families.family_table import decoder_families
from lm_eval_clas.families.family_trial import WRONG
from lm_eval_clas.families.tried_in_vllm import CELLS_FILE


def main() -> int:
    """Tries them; 1 if one would be silently wrong."""
    from lm_eval_clas.families.vllm_trial import vllm_cells

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", help="default: all")
    parser.add_argument("--anew", action="store_true", help="try again what has been tried")
    parser.add_argument("--out", type=Path, default=CELLS_FILE, help="the file, where it is not to be that of the package")
    parser.add_argument("--seconds", type=float, default=300, help="how long one family may take")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_libraries()
    head = {"vllm": version("vllm").partition("+")[0], "transformers": version("transformers")}
    before = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.is_file() else {}
    known = decoder_families()
    cells: dict[str, str] = {}
    if not asked.anew and {name: before.get(name) for name in head} == head:
        cells = {family: cell for family, cell in before["cells"].items() if family in known}
    wanted = asked.families or [family for family in known if family not in cells]
    for family, cell in vllm_cells(wanted, asked.seconds):
        print(f"{family}: {cell}", flush=True)
        cells[family] = cell
        text = json.dumps({**head, "cells": dict(sorted(cells.items()))}, indent=1, ensure_ascii=False)
        asked.out.write_text(text + "\n", encoding="utf-8")
    return int(any(cell.startswith(WRONG) for cell in cells.values()))


if __name__ == "__main__":
    raise SystemExit(main())
