"""`vllm-clas` in a process of its own: arguments as JSON on the command line, answers as JSON in a file.

python tests/support/engine_process.py CHECKPOINT MASKS OUT '{"tensor_parallel_size": 2}' '{"alpha": 1}' '{"alpha": 2}'

The last two are options of steering: those that the engine starts with, and those that are exchanged for them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    from small_engines import STARTING, choices, questions

    from lm_eval_clas.engine.vllm_clas import VLLMCLAS

    checkpoint, masks, out = sys.argv[1:4]
    options, first, then = map(json.loads, sys.argv[4:])
    lm = VLLMCLAS(checkpoint, masks, **first, **{**STARTING, **options})
    answers = {"loglikelihood": lm.loglikelihood(choices(3)), "generate_until": lm.generate_until(questions(2))}
    told = lm.get_model_info()["clas"]["witness"]
    lm.steer(**then)
    answers["exchanged"] = lm.loglikelihood(choices(3))
    Path(out).write_text(json.dumps({"answers": answers, "witness": told}), encoding="utf-8")


if __name__ == "__main__":
    main()
