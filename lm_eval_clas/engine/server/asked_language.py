"""What a request to a server says of its language: in its body, in a header, or in its address."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT
from lm_eval_clas.engine.server.served_steering import DETECT

HEADER = "x-clas-language"
ARGUMENT = "clas_language"
_EXTRAS = ("vllm_xargs", "extra_args")
_TEXTS = ("prompt", "messages", "input")
_PROMPTS = (*_TEXTS, "prompt_embeds")
# In a body that is no JSON, such as the form that sound comes in: as JSON in a field, or as vllm_xargs[clas_language].
_IN_FORM = re.compile(rb"[\"'\[](clas|clas_language)[\"'\]]")


def content_of(body: bytes) -> Any:
    """What a body holds; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def extras_in(content: Any, body: bytes) -> Iterator[Mapping[str, Any]]:
    """What a body has for the engine beside what vLLM knows, wherever it stands; of a form, which names it has.

    Args:
        content: of the body.
        body: as it came.
    """
    if content is None:
        yield from ({found[1].decode(): DETECT} for found in _IN_FORM.finditer(body))
    left = [content]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += one.values()
            yield from (one[name] for name in _EXTRAS if isinstance(one.get(name), dict))


def refuse_rows(extras: Iterable[Mapping[str, Any]]) -> None:
    """Refuses a request that names a row itself, wherever vLLM may take it from.

    Raises:
        ClasError: it does.
    """
    if any(EXTRA_ARGUMENT in one for one in extras):
        raise ClasError(f"A request names its language as '{ARGUMENT}', not factors as '{EXTRA_ARGUMENT}'.")


def language_named(scope: Mapping[str, Any], extras: Iterable[Mapping[str, Any]]) -> str | None:
    """The language that a request names: in its body, or else in a header, or else in its address.

    Args:
        scope: of the request, as ASGI has it.
        extras: where in the body to look.
    """
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    address = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    places = [*(one.get(ARGUMENT) for one in extras), headers.get(HEADER), *address.get(ARGUMENT, [])]
    return next((str(named) for named in places if named), None)


def has_prompt(content: Any) -> bool:
    """Whether there is anything to generate from; vLLM says what is wrong where there is not."""
    return isinstance(content, dict) and any(name in content for name in _PROMPTS)


def text_of(content: MutableMapping[str, Any]) -> str:
    """The text of a prompt; of a conversation, what its user wrote."""
    return "\n".join(_texts(content))


def _texts(content: MutableMapping[str, Any]) -> Iterator[str]:
    for name in _TEXTS:
        parts = content.get(name)
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, str):
                yield part
            elif isinstance(part, dict) and part.get("role", "user") == "user":
                inner = part.get("content")
                for piece in inner if isinstance(inner, list) else [inner]:
                    text = piece.get("text") if isinstance(piece, dict) else piece
                    if isinstance(text, str):
                        yield text
