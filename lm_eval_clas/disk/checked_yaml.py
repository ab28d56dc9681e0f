"""YAML that may come from anywhere."""

from __future__ import annotations

from typing import Any

import yaml

from lm_eval_clas.disk.checked_json import shown


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data alone, with no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for number, key in enumerate(keys) if key in keys[:number]]:
            raise ValueError(f"it has '{shown(twice[0])}' twice, from line {node.start_mark.line + 1} on")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_yaml(text: str) -> Any:
    """The value of one YAML document, as `yaml.safe_load` gives it.

    Raises:
        ValueError: it is none, or has a key twice; the message says why.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is no YAML: {shown(reason, 200)}") from error
    except (ValueError, OverflowError, TypeError) as error:  # dates and numbers that there cannot be
        raise ValueError(shown(error, 200)) from error
