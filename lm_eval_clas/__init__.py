"""lm-eval-clas: cross-lingual activation steering inside the LM evaluation harness.

Nothing is imported until it is used, so that the command line answers quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "ActivationSteerer": "steering",
    "BridgeLayerSelector": "bridge",
    "CLASLM": "model",
    "ClasError": "errors",
    "MaskSet": "masks",
    "NeuronCategorizer": "categories",
    "ParallelInputBuilder": "corpora",
    "Profile": "profiles",
    "categorize": "categories",
    "profile": "profiling",
    "select_bridge_layers": "bridge",
}

if TYPE_CHECKING:
    from lm_eval_clas.bridge import BridgeLayerSelector, select_bridge_layers
    from lm_eval_clas.categories import NeuronCategorizer, categorize
    from lm_eval_clas.corpora import ParallelInputBuilder
    from lm_eval_clas.errors import ClasError
    from lm_eval_clas.masks import MaskSet
    from lm_eval_clas.model import CLASLM
    from lm_eval_clas.profiles import Profile
    from lm_eval_clas.profiling import profile
    from lm_eval_clas.steering import ActivationSteerer

__all__ = [
    "CLASLM",
    "ActivationSteerer",
    "BridgeLayerSelector",
    "ClasError",
    "MaskSet",
    "NeuronCategorizer",
    "ParallelInputBuilder",
    "Profile",
    "__version__",
    "categorize",
    "profile",
    "select_bridge_layers",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
