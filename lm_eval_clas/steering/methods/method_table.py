"""The table of all methods: a new one gets an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm_eval_clas.steering.methods.arithmetic import NeuronArithmetic
from lm_eval_clas.steering.methods.clas_factors import ClasFactors
from lm_eval_clas.steering.methods.diffmean import MeanDifference
from lm_eval_clas.steering.methods.incline import AlignmentMap
from lm_eval_clas.steering.methods.int_mu import MeanOverwriting
from lm_eval_clas.steering.methods.random_direction import RandomDirection
from lm_eval_clas.steering.methods.shuffled_factors import ShuffledFactors
from lm_eval_clas.steering.methods.steering_method import SteeringMethod
from lm_eval_clas.steering.methods.uniform_gain import UniformGain

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet

OFF = "off"  # what `method=` says of no steering
METHODS: dict[str, SteeringMethod] = {
    one.name: one
    for one in (
        ClasFactors(),
        UniformGain(),
        ShuffledFactors(),
        MeanOverwriting(),
        NeuronArithmetic(),
        MeanDifference(),
        RandomDirection(),
        AlignmentMap(),
    )
}
METHOD_NAMES = (ClasFactors.name, OFF, *(name for name in METHODS if name != ClasFactors.name))  # what `method=` takes


def measured_hash(masks: MaskSet, name: str) -> str | None:
    """The hash of what a method needs beside masks; None where it needs nothing, or the masks lack it."""
    return next(iter(measured_by(masks, name).values()), None)


def measured_by(masks: MaskSet, name: str) -> dict[str, str | None]:
    """The same under the name that results have for it: `means_hash`, `residual_hash`, or nothing."""
    if name not in METHODS or not METHODS[name].measured:
        return {}
    key = f"{METHODS[name].measured}_hash"
    return {key: getattr(masks, key)}


def controls_for(name: str) -> dict[str, str]:
    """The controls that are as strong as a method, which it must beat to mean anything, by name, and what tables call them.

    A method that no control stands beside has none: being ahead of one of another size would show nothing.
    """
    beside = name if name in METHODS else ClasFactors.name
    return {one.name: one.control for one in METHODS.values() if one.control and one.stands_beside == beside}
