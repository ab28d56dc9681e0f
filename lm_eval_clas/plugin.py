"""How a stock `lm_eval` learns the name `hf-clas`, with nothing heavy imported.

Harness versions with the entry-point group `lm_eval.models` read the entry point in pyproject.toml. For the others, one
line in `lm_eval_clas_hook.pth` calls `install()` when Python starts: it only puts a finder on `sys.meta_path`, which
waits for the module `lm_eval.models` and registers the lazy name once that has been imported. Set the environment
variable LM_EVAL_CLAS_NO_HOOK=1 to turn the hook off.
"""

import sys

# Not from typing: importing that would be most of the hook's cost at every start of Python.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = "hf-clas"
TARGET = "lm_eval_clas.model:CLASLM"
_MODULE = "lm_eval.models"


def register() -> None:
    """Registers the lazy name with the harness, unless an entry point (or an earlier call) already did."""
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


class _AfterModels:
    """A finder that finds nothing itself, but has `register` called after `lm_eval.models` was executed."""

    _searching = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != _MODULE or self._searching:
            return None
        self._searching = True
        try:
            from importlib.util import find_spec

            spec = find_spec(name)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def exec_module(module: "ModuleType") -> None:
                    execute(module)
                    try:
                        register()
                    except Exception as error:  # The harness must go on without us, whatever its version.
                        sys.stderr.write(f"lm-eval-clas: could not register '{NAME}': {error}\n")

                spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec
        except Exception:
            return None  # The ordinary finders then find the module, or say why not.
        finally:
            self._searching = False


def install() -> None:
    """Puts the finder in place, once."""
    if not any(type(finder).__name__ == "_AfterModels" for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterModels())  # type: ignore[arg-type]
