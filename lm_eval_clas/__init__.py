"""lm-eval-clas: cross-lingual activation steering inside the LM evaluation harness.

Nothing is imported until it is used, so that the command line answers quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lm_eval_clas.base.version import __version__

_HOMES = {
    "ActivationSteerer": "steering.activation_steerer",
    "BridgeLayerSelector": "neurons.bridge",
    "CLASLM": "harness.hf_clas",
    "ClasError": "base.errors",
    "MaskSet": "masks.mask_set",
    "NeuronCategorizer": "neurons.categories",
    "ParallelInputBuilder": "texts.corpora",
    "Profile": "neurons.profile_folder",
    "categorize": "neurons.categories",
    "profile": "neurons.profiling",
    "select_bridge_layers": "neurons.bridge",
}

if TYPE_CHECKING:
    from lm_eval_clas.base.errors import ClasError
    from lm_eval_clas.harness.hf_clas import CLASLM
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.neurons.bridge import BridgeLayerSelector, select_bridge_layers
    from lm_eval_clas.neurons.categories import NeuronCategorizer, categorize
    from lm_eval_clas.neurons.profile_folder import Profile
    from lm_eval_clas.neurons.profiling import profile
    from lm_eval_clas.steering.activation_steerer import ActivationSteerer
    from lm_eval_clas.texts.corpora import ParallelInputBuilder

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
