"""What tells one model from another in the arguments it was loaded with, so that strengths are known to be another model's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Arguments that decide what a model computes or is asked, with the harness's defaults. Those of where and how fast it runs are
# not among them; its dtype, its template and how it scores are told apart from these.
_DECIDES: dict[str, Any] = {
    "revision": "main",
    "subfolder": "",
    "tokenizer": None,
    "peft": None,
    "delta": None,
    "lora_local_path": None,
    "autogptq": False,
    "gptqmodel": False,
    "gguf_file": None,
    "quantization": None,
    "load_in_4bit": False,
    "load_in_8bit": False,
    "add_bos_token": None,
    "prefix_token_id": None,
    "truncation": False,
    "think_end_token": None,
    "enable_thinking": None,
    "chat_template_args": None,
}


def loaded_as(pretrained: Any, arguments: Mapping[str, Any]) -> dict[str, str | None]:
    """`model` and `model_args`, as `Conditions` have them.

    One model may lie at several paths, and be on the Hub: of each name and path the last component is taken.

    Args:
        pretrained: a path or a name on the Hub; of a model that was loaded elsewhere, nothing is known.
        arguments: all others of the harness's model class.
    """
    if not isinstance(pretrained, str):
        return {"model": None, "model_args": None}
    given = {
        name: _last(value) if isinstance(value, str) else str(value)
        for name, value in arguments.items()
        if name in _DECIDES and value not in (None, _DECIDES[name]) and isinstance(value, str | int | dict)
    }
    return {"model": _last(pretrained), "model_args": ",".join(f"{name}={given[name]}" for name in sorted(given))}


def _last(name: str) -> str:
    """The last component of a path or name; of a snapshot in the Hub's cache, that of the repository."""
    path = Path(os.path.abspath(name))
    of_cache = path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--")
    return path.parent.parent.name.rpartition("--")[2] if of_cache else path.name
