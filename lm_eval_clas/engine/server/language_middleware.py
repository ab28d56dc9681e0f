"""`LanguageMiddleware`: between a client and vLLM's server, it makes the language that a request names the row that it gets.

A request names its language in the header `X-CLAS-Language`, in the address (`?clas_language=hi`), or in the body, as
`vllm_xargs: {"clas_language": "hi"}`; `detect` stands for detection on its prompt. Without any, it is not steered. Whatever
else a server is asked (tokens, scores, embeddings) is left alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT
from lm_eval_clas.engine.server.served_steering import ServedSteering

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADER = "x-clas-language"
ARGUMENT = "clas_language"
STEERED = b"x-clas-steered"  # in answers: the language that they were steered for, or `no`
_TEXTS = ("prompt", "messages", "input")
_PROMPTS = (*_TEXTS, "prompt_embeds")
# Where texts are generated and `vllm_xargs` reach the engine, in vLLM 0.32.0.
GENERATING = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")


class LanguageMiddleware:
    """An ASGI application around another, given by name as `--middleware`.

    Args:
        app: vLLM's.
        served: what it steers by; default: as `clas serve` put it into the environment.
    """

    def __init__(self, app: Any, served: ServedSteering | None = None) -> None:
        self._app = app
        self._served = served or ServedSteering.from_environment()
        self._loading = asyncio.Lock()
        self._changes: dict[str, list[int]] | None = None  # by row, layers; None until the engine has the factors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        try:
            content = _content(body)
            _refuse_rows(content)
            if _route(scope) not in GENERATING:
                await self._app(scope, _once(body, receive), send)
                return
            changed, language = self._named(scope, body, content)
            if language is not None:
                await self._require_effect(scope, language)
        except ClasError as error:
            await _refuse(send, str(error))
            return
        await self._app(_with_length(scope, changed), _once(changed, receive), _telling(send, language))

    def _named(self, scope: Scope, body: bytes, content: Any) -> tuple[bytes, str | None]:
        """The body with the name of a row in the place of the language, and the language that it is steered for."""
        if not isinstance(content, dict) or not any(name in content for name in _PROMPTS):
            return body, None  # vLLM says what is wrong with it
        extra = content.get("vllm_xargs")
        extra = dict(extra) if isinstance(extra, dict) else {}
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        address = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        named = extra.pop(ARGUMENT, None) or headers.get(HEADER) or next(iter(address.get(ARGUMENT, [])), None)
        language = self._served.language_of(None if named is None else str(named), "\n".join(_texts(content)))
        row = self._served.row_of(language)
        if row is not None:
            if content.get("use_beam_search"):
                raise ClasError(
                    "Beam search is not steered: vLLM runs its beams without what a request names; drop use_beam_search, or "
                    f"name no language (this request is for '{language}')."
                )
            extra[EXTRA_ARGUMENT] = row
        elif "vllm_xargs" not in content:
            return body, None
        return json.dumps({**content, "vllm_xargs": extra or None}).encode(), language if row else None

    async def _require_effect(self, scope: Scope, language: str) -> None:
        """Hands the factors to the engine, before the first request that needs them; refuses a language they do not change.

        Raises:
            ClasError: they change nothing in the dtype of the model, or the factors are not those of the start.
        """
        async with self._loading:
            if self._changes is None:
                tables = self._served.tables
                answers = await scope["app"].state.engine_client.collective_rpc("clas_load", args=(tables.dump(),))
                self._changes = tables.changes(answers)
        if not self._changes.get(self._served.row_of(language) or ""):
            raise ClasError(
                f"Requests in '{language}' are to be steered so weakly that nothing would change in the dtype of the model; "
                "start the server with a larger --alpha, or with --dtype float32."
            )


def _route(scope: Scope) -> str:
    """The path of a request below the server's `--root-path`, as the application inside reads it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path[len(root) :] if path.startswith(f"{root}/") else path


def _texts(content: MutableMapping[str, Any]) -> Iterator[str]:
    """The texts of a prompt; of a conversation, what its user wrote."""
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


def _content(body: bytes) -> Any:
    """What a body holds; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refuse_rows(content: Any) -> None:
    """Refuses a request that names a row itself, wherever vLLM may take it from.

    Raises:
        ClasError: it does.
    """
    left = [content]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += one.values()
            for name in ("vllm_xargs", "extra_args"):
                if isinstance(one.get(name), dict) and EXTRA_ARGUMENT in one[name]:
                    raise ClasError(f"A request names its language as '{ARGUMENT}', not factors as '{EXTRA_ARGUMENT}'.")


async def _whole(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """What hands a body over, and then whatever else comes, such as that the client went away."""
    handed_over = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal handed_over
        if handed_over:
            return await receive()
        handed_over = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_length(scope: Scope, body: bytes) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


def _telling(send: Send, language: str | None) -> Send:
    async def told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (STEERED, (language or "no").encode())]
        await send(message)

    return told


async def _refuse(send: Send, sentence: str) -> None:
    """400, in the form of vLLM's own errors."""
    error = {"error": {"message": sentence, "type": "BadRequestError", "param": ARGUMENT, "code": 400}}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error).encode()})
