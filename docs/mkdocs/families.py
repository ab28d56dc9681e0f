"""The page of families, from trying every family of the installed transformers on a tiny model.

    python docs/mkdocs/families.py            # writes docs/families.md
    python docs/mkdocs/families.py --check    # exit 1 if a cell is worse than on the page, or silently wrong

A family that transformers adds is in the next page by itself.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from lm_eval_clas.base.logs import quiet_libraries
from lm_eval_clas.families.family_table import decoder_families, family_rows, read_family_page, totals, worse
from lm_eval_clas.families.family_trial import WRONG, try_family
from lm_eval_clas.families.tried_in_vllm import BY_TRANSFORMERS, OTHERWISE, tried_in_vllm

PAGE = Path(__file__).resolve().parents[1] / "families.md"
INTRODUCTION = """# Which families of models

Made by `python docs/mkdocs/families.py` with transformers {version}, and checked in CI: no cell may get worse, and none
may be silently wrong. `clas families` prints the same for the version that you have. Every family for which
transformers has a causal language model is built tiny, with random weights, and tried; what the last column says
was found with {tried}, and is kept in the package.

{totals}

- **MLP**, **attention**: the modules whose inputs are neurons, as they are found by structure (`mlp.experts`: a mixture
  of experts, whose neurons are those of every expert); *by pattern*: with `projection=PATTERN`, and what it matches;
  *refused*, and why.
  Where some layers have none (state-space layers, layers that only images reach), the number of those that do is given;
  the others are left out.
- **steered = merged**: at both sites, steered logits are those of a model whose weights are scaled, and others than
  without steering.
- **resumable**: `clas tune` runs the layers below the bridge once, and the results are the same to the last bit; *no*
  means that it runs them every time.
- **prefixes shared**: what requests have in common runs once; *no* means that every request runs whole.
- **(IA)3**: steering the MLP is exported as an adapter, which PEFT loads, and the logits are those of the hook; *no*:
  experts have no module that could get a vector.
- **vLLM**: what [`vllm-clas`](vllm.md) does, on a CPU and in float32. *steered*: the MLP is, the log-probabilities of
  prompts and answers are those of the steered model of transformers (2e-4 of the largest), and unsteered ones in the same
  batch are plain vLLM's, bit for bit; *{by_transformers}*: vLLM has no class of its own for the family, and runs
  that of transformers; *{otherwise}*: its unsteered numbers are others, too, and what is
  steered is what vLLM makes of scaled weights. *refused*, and why; *not in vLLM*; *vLLM fails*, with its error, before
  anything of ours is involved: on CPUs, it lacks what some families need. *not tried*: that version of transformers does
  not have the family, or the reason stands there. Where vLLM has a family that is refused, a merged checkpoint
  ([export](export.md)) is an ordinary one of its family, and steers in one language.

*failed* is said with the error, where something raised one that is no refusal.

*not built* is said of families whose default configuration the rules for tiny ones do not make consistent, or that need
another library or other inputs than text. It does not say that such a model is not supported: load it, and what cannot
be found is refused.

"""


def main() -> int:
    """Writes the page, or checks it."""
    import transformers

    warnings.simplefilter("ignore")
    quiet_libraries()
    trials = [try_family(family) for family in decoder_families()]
    if "--check" in sys.argv[1:]:
        before = read_family_page(PAGE.read_text(encoding="utf-8"))
        faults = [fault for one in trials if one.family in before for fault in worse(before[one.family], one)]
        faults += [f"{one.family} is silently wrong" for one in trials if WRONG in one.cells and one.family not in before]
        print("\n".join(faults), file=sys.stderr)
        return int(bool(faults))
    text = INTRODUCTION.format(
        version=transformers.__version__,
        totals=totals(trials),
        tried=tried_in_vllm().versions,
        by_transformers=BY_TRANSFORMERS,
        otherwise=OTHERWISE,
    )
    PAGE.write_text(text + "\n".join(family_rows(trials)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
