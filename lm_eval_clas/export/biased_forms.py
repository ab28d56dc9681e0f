"""Which biases a model's family can have: as it is, or with a field of its configuration that is named after them turned round.

Llama has no biases in its MLPs unless `mlp_bias` is true, Cohere none in attention unless `attention_bias` is. No family is
known by name here: fields are turned round one by one, and the model that comes out is looked at, on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import nn

_BIAS = ".bias"


@dataclass(frozen=True)
class BiasedForm:
    """A model with biases.

    Attributes:
        field: where the field of the configuration is that was turned round; empty for the model as it is.
        value: what it is now.
        modules: the names of all modules that have a bias.
        added: the lengths of those biases that the model as it is does not have, by the name of the module.
    """

    field: tuple[str, ...]
    value: bool
    modules: frozenset[str]
    added: Mapping[str, int]


def choose_form(model: nn.Module, wanted: Sequence[Sequence[str]]) -> tuple[BiasedForm, list[str]] | None:
    """The form with the fewest more biases in which each of the wanted modules has one; None if there is none.

    Args:
        model: on the meta device.
        wanted: of each, the names of modules any of which would do, the best first.

    Returns:
        The form, and the names that have a bias in it.
    """
    for form in sorted(_forms(model), key=lambda one: sum(one.added.values())):
        found = [next((name for name in names if name in form.modules), "") for names in wanted]
        if all(found):
            return form, found
    return None


def _forms(model: nn.Module) -> Iterator[BiasedForm]:
    """The model as it is, and with each field turned round that adds biases and changes nothing else."""
    before, kinds = _numbers(model), _kinds(model)
    yield BiasedForm((), False, _biased(before), {})
    for field, value in _fields(model.config):
        config = deepcopy(model.config)
        setattr(reduce(getattr, field[:-1], config), field[-1], not value)
        try:
            with torch.device("meta"):
                other = type(model)(config)
        except Exception:  # a family may raise anything for a configuration that it does not take
            continue
        after = _numbers(other)
        added = {name: shape for name, shape in after.items() if name not in before}
        only_biases = all(name.endswith(_BIAS) and len(shape) == 1 for name, shape in added.items())
        rest = {name: shape for name, shape in after.items() if name not in added}
        if added and only_biases and rest == before and _kinds(other) == kinds:
            lengths = {name.removesuffix(_BIAS): shape[0] for name, shape in added.items()}
            yield BiasedForm(field, not value, _biased(after), lengths)


def _fields(config: Any, inside: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The fields that are true or false and named after biases, also those of configurations inside."""
    for name, value in vars(config).items():
        if isinstance(value, bool) and "bias" in name and not name.startswith("_"):
            yield (*inside, name), value
        elif hasattr(value, "model_type") and hasattr(value, "to_dict"):
            yield from _fields(value, (*inside, name))


def _numbers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters and buffers, by name."""
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: tuple(one.shape) for name, one in every}


def _kinds(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}


def _biased(numbers: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    return frozenset(name.removesuffix(_BIAS) for name in numbers if name.endswith(_BIAS))
