"""`LanguageMiddleware`: between a client and vLLM's server, it makes the language that a request names the row that it gets.

A request names its language in the header `X-CLAS-Language`, in the address (`?clas_language=hi`), or in the body, as
`vllm_xargs: {"clas_language": "hi"}`; `detect` stands for detection on its prompt. Without any, it is not steered. No
language is ignored: where vLLM would generate without the row, a request that names one is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.base.logs import logger
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT
from lm_eval_clas.engine.server.asked_language import (
    ARGUMENT,
    content_of,
    extras_in,
    has_prompt,
    language_named,
    refuse_rows,
    text_of,
)
from lm_eval_clas.engine.server.served_steering import DETECT, ServedSteering

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STEERED = b"x-clas-steered"  # in answers: the language that they were steered for, or `no`
# Where texts are generated and `vllm_xargs` reach the engine, in vLLM 0.32.0.
STEERED_AT = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/invocations")
# Where the model runs, too, and what a request names gets lost on the way, or comes in another form.
NEVER_STEERED = (
    "/v1/chat/completions/batch",
    "/cohere/v2/chat",
    "/inference/v1/generate",
    "/generative_scoring",
    "/v1/systemone",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/realtime",
)
# Where a client that names its language in everything it sends loses nothing.
_WITHOUT_MODEL = re.compile("/tokenize|/detokenize|/v1/messages/count_tokens|/v1/responses/[^/]+/cancel")
_EVERY = 60.0  # seconds from one look at the engine's counts to the next


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
        self._next_look = 0.0
        self._broken = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope.get("method", "POST") != "POST":
            await self._app(scope, receive, send)
            return
        route, language = _route(scope), None
        body = await _whole(receive) if scope["type"] == "http" else b""
        try:
            content = content_of(body)
            extras = list(extras_in(content, body))
            refuse_rows(extras)
            if scope["type"] == "websocket" or route not in STEERED_AT:
                self._refuse_unsteered(scope, route, extras)
            elif self._broken:
                await _refuse(scope, send, _BROKEN, 500)
                return
            else:
                body, language = self._named(scope, body, content, extras)
                scope = _with_length(scope, body)
            if language is not None:
                await self._require_effect(scope, language)
        except ClasError as error:
            await _refuse(scope, send, str(error))
            return
        tells = scope["type"] == "http" and route in (*STEERED_AT, *NEVER_STEERED)
        again = _once(body, receive) if scope["type"] == "http" else receive
        await self._app(scope, again, _telling(send, language) if tells else send)
        if language is not None:
            await self._look(scope)

    def _named(self, scope: Scope, body: bytes, content: Any, extras: Iterable[Mapping[str, Any]]) -> tuple[bytes, str | None]:
        """The body with the name of a row in the place of the language, and the language that it is steered for."""
        if not has_prompt(content):
            return body, None
        language = self._served.language_of(language_named(scope, extras), text_of(content))
        extra = content.get("vllm_xargs")
        extra = dict(extra) if isinstance(extra, dict) else {}
        extra.pop(ARGUMENT, None)
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

    def _refuse_unsteered(self, scope: Scope, route: str, extras: Iterable[Mapping[str, Any]]) -> None:
        """Refuses a request that is for a language, where no request is steered.

        Raises:
            ClasError: it is, or names no language.
        """
        if _WITHOUT_MODEL.fullmatch(route):
            return
        named = language_named(scope, extras)
        asked = named or (self._served.language if route in NEVER_STEERED else None)
        if asked is None or (asked != DETECT and self._served.row_of(self._served.language_of(asked, "")) is None):
            return
        anchor = self._served.factors.masks.anchor
        why, instead = (
            ("this request names a language", "name none")
            if named
            else (f"this server steers requests that name no language (by --language {asked})", f"name '{anchor}', the anchor")
        )
        raise ClasError(
            f"What '{route[:80]}' answers is not steered, and {why}; ask {', '.join(STEERED_AT[:-1])} or {STEERED_AT[-1]}, or "
            f"{instead}."
        )

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

    async def _look(self, scope: Scope) -> None:
        """After a steered answer, and not too often: has the engine compare what it counted. With data parallelism, vLLM hands
        on what one engine answers and the errors of all."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _EVERY
        try:
            rows = list(self._served.tables.rows)
            await scope["app"].state.engine_client.collective_rpc("clas_require_steered", args=(rows,))
        except Exception as error:  # of the engine's process, whatever raised it there
            logger.error("clas serve: %s", first_line(error))
            self._broken = True


_BROKEN = (
    "The engine of this server did not steer every token as it was asked to (the server's log says where), so no more is "
    "answered; start it again."
)


def _route(scope: Scope) -> str:
    """The path of a request below the server's `--root-path`, as the application inside reads it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return (path[len(root) :] if path.startswith(f"{root}/") else path).rstrip("/")


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


async def _refuse(scope: Scope, send: Send, sentence: str, status: int = 400) -> None:
    """In the form of vLLM's own errors; for a websocket, in the place of its beginning."""
    kind = "BadRequestError" if status == 400 else "InternalServerError"
    error = {"error": {"message": sentence, "type": kind, "param": ARGUMENT, "code": status}}
    headers = [(b"content-type", b"application/json")]
    answer = "http.response" if scope["type"] == "http" else "websocket.http.response"
    await send({"type": f"{answer}.start", "status": status, "headers": headers})
    await send({"type": f"{answer}.body", "body": json.dumps(error).encode()})
