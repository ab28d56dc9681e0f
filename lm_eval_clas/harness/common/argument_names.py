"""Arguments of a model class that were mistyped, told in a sentence before anything is loaded.

A model class hands what it does not know on to transformers or vLLM, and so do we: models may have arguments of their own. Only
what differs by a slip from an argument that is known, and is none of the model's, is refused. What is known is read from the
signatures of whatever takes arguments, and not listed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import slip_of

_TAKEN = re.compile(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)["']""")
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


def named_in(*takers: Callable[..., Any]) -> set[str]:
    """The names that functions and classes have in their signatures; of a class, with those that it inherits from."""
    found: set[str] = set()
    for taker in takers:
        for one in taker.__mro__[:-1] if inspect.isclass(taker) else (taker,):
            found |= set(inspect.signature(one.__init__ if inspect.isclass(taker) else one).parameters)  # type: ignore[misc]
    return found - {"self", "cls", "args", "kwargs", "model_args"}


def loading_names() -> set[str]:
    """The names of what transformers takes to load a model: in signatures, or out of `kwargs` in the function itself."""
    from transformers import AutoModelForCausalLM, PreTrainedModel

    functions = (AutoModelForCausalLM.from_pretrained, PreTrainedModel.from_pretrained)
    return named_in(*functions) | {name for one in functions for name in _TAKEN.findall(inspect.getsource(one))}


def refuse_slips(
    asker: str,
    given: Mapping[str, Any],
    known: Iterable[str],
    own: Callable[[], Iterable[str]] = lambda: (),
    where: str = "--model_args",
) -> None:
    """Refuses an argument that is a slip of a known one.

    Args:
        asker: the model class, as a user knows it.
        given: arguments by name.
        known: names that the class and what it loads with take.
        own: tells what the model itself takes; is asked only where there seems to be a slip.
        where: they were given.

    Raises:
        ClasError: there is one; the sentence names what was meant.
    """
    known = set(known)
    for name in given:
        if name not in known and (meant := slip_of(name, known)) is not None and name not in set(own()):
            raise ClasError(f"{asker} takes no argument '{name}' (did you mean '{meant}'?); correct it in {where}.")


def options_of_model(pretrained: object, given: Mapping[str, Any]) -> set[str]:
    """What can be set in a model's configuration by an argument; nothing where that cannot be read."""
    from transformers import AutoConfig

    loading = {name: given[name] for name in ("revision", "trust_remote_code", "gguf_file", "subfolder") if name in given}
    try:
        config = AutoConfig.from_pretrained(pretrained, **loading)
    except Exception:  # whatever is wrong is told when the model is loaded
        return set()
    return {*vars(config), *getattr(config, "attribute_map", {})}


@contextmanager
def strange_arguments_told(asker: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Says in a sentence which argument a model refused in the block.

    Raises:
        ClasError: it was one of those that were given.
    """
    try:
        yield
    except TypeError as error:
        found = _UNEXPECTED.search(str(error))
        if found is None or found[1] not in given:
            raise
        raise ClasError(
            f"Neither {asker} nor the model takes an argument '{found[1]}'; take it out of --model_args."
        ) from error
