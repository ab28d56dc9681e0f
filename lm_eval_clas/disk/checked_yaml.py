"""YAML that may come from anywhere: with nothing in it that breaks what comes after reading, or takes long to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from lm_eval_clas.base.escaping import visible
from lm_eval_clas.disk.checked_json import shown

_LARGEST = 50_000  # characters; a recipe with every option has some thousand
_DEEPEST = 50  # levels; a recipe has five
_MOST = 10_000  # values, each counted as often as aliases repeat it
_LARGEST_NUMBER = 2**63  # of this size and more, whole numbers are no integers in most of what comes after
_LONGEST_NUMBER = 64 + len("-0b")  # characters; those of more digits are not even read


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data alone, with no key twice, and not nested more deeply than anybody writes it, which would take long to read."""

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        self._level += 1
        if self._level > _DEEPEST:
            raise ValueError("it is nested too deeply")
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            value = self.construct_object(key)
            if value in seen:
                raise ValueError(f"it has '{shown(key.value)}' twice, from line {node.start_mark.line + 1} on")
            seen.add(value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_yaml(text: str) -> Any:
    """The value of one YAML document, as `yaml.safe_load` gives it.

    No key comes twice, every whole number is an integer of 64 bits, every text can be shown on its lines, and neither depth nor
    aliases make it large.

    Raises:
        ValueError: it is none of that kind; the message says why.
    """
    if len(text) > _LARGEST:
        raise ValueError("it is too large")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, ())
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is no YAML: {shown(reason, 200)}") from error
    except (ValueError, OverflowError, TypeError) as error:  # dates and numbers that there cannot be
        raise ValueError(shown(error, 200)) from error
    for one in _scalars(value):
        if isinstance(one, str) and visible(one, keep="\n\t") != one:
            raise ValueError(f"it has a character that cannot be seen, in '{shown(one)}'")
        if isinstance(one, int) and abs(one) >= _LARGEST_NUMBER:
            raise ValueError("it has a number that is too large")
    return value


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], above: tuple[int, ...]) -> tuple[int, int]:
    """How many values are in a node, and how many levels, with what aliases repeat.

    Raises:
        ValueError: too many of either, or the node is in itself.
    """
    if id(node) in above:
        raise ValueError("it has a value in itself")
    if len(above) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
        raise ValueError("it has a number that is too large")
    if id(node) not in known:
        inside = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = [] if isinstance(node, yaml.ScalarNode) else [_measure(one, known, (*above, id(node))) for one in inside]
        known[id(node)] = 1 + sum(size for size, _ in parts), 1 + max((levels for _, levels in parts), default=0)
    size, levels = known[id(node)]
    if len(above) + levels > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if size > _MOST:
        raise ValueError("it is too large")
    return size, levels


def _scalars(value: Any) -> Iterator[Any]:
    """What is in a value that contains no more than `_measure` lets through."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _scalars(one)
    else:
        yield value
