"""How a stock `lm_eval` learns the names `hf-clas` and `vllm-clas`, with nothing heavy imported.

Harness versions with the entry-point group `lm_eval.models` read the entry point in pyproject.toml. For the others, the one
line of `lm_eval_clas_hook.pth`, which Python executes when it starts, puts a finder on `sys.meta_path`. It waits for the
module `lm_eval.models` and only then imports this one, which registers the lazy names once that module has been executed.
Set the environment variable LM_EVAL_CLAS_NO_HOOK=1 to turn the hook off.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TARGETS = {"hf-clas": "lm_eval_clas.harness.hf_clas:CLASLM", "vllm-clas": "lm_eval_clas.engine.vllm_clas:VLLMCLAS"}

_searching = False


def register() -> None:
    """Registers the lazy names with the harness, unless entry points (or an earlier call) already did.

    The harness registers its own models only where the registry is empty, so ours come after them.
    """
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    for name, target in TARGETS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def spec_of_models() -> ModuleSpec | None:
    """The spec of `lm_eval.models` as the other finders give it, whose loader also calls `register`.

    None while it is being searched for, so that the other finders are asked.
    """
    global _searching
    if _searching:
        return None
    _searching = True
    try:
        spec = find_spec("lm_eval.models")
    finally:
        _searching = False
    if spec is not None and spec.loader is not None:
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            try:
                register()
            except Exception as error:  # The harness must go on without us, whatever its version.
                sys.stderr.write(f"lm-eval-clas: could not register {', '.join(TARGETS)}: {error}\n")

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec
