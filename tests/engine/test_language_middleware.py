"""Between a client and vLLM's server: languages become rows, and nothing else is touched. Without vLLM."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.row_tables import RowTables
from lm_eval_clas.engine.server.language_middleware import LanguageMiddleware
from lm_eval_clas.engine.server.served_steering import ServedSteering
from lm_eval_clas.engine.server.server_start import server_arguments

HINDI = "नदी रात में बढ़ी और पुल बंद कर दिया गया, इसलिए लोग घर लौट आए।"


@pytest.fixture
def folder(masks: MaskSet, tmp_path: Path) -> str:
    return str(masks.save(tmp_path / "masks") or tmp_path / "masks")


@pytest.fixture
def served(folder: str) -> ServedSteering:
    return ServedSteering(folder, {"alpha": "-2", "specific_scope": "own"})


class Server:
    """What vLLM's server is told, and its engine."""

    def __init__(self, served: ServedSteering) -> None:
        self.seen: list[Any] = []
        self.loaded: list[RowTables] = []
        self.state = SimpleNamespace(engine_client=self)
        self._middleware = LanguageMiddleware(self._answer, served)

    async def collective_rpc(self, method: str, args: tuple[bytes, ...]) -> None:
        assert method == "clas_load"
        self.loaded.append(RowTables.read(*args))

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        length = dict(scope["headers"]).get(b"content-length", b"0")
        assert int(length) == len(message["body"])
        self.seen.append(json.loads(message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def post(
        self, body: Any, headers: dict[str, str] | None = None, query: str = "", path: str = "/v1/completions"
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and content of the answer."""
        sent: list[Any] = []
        # In two parts, as large bodies come.
        raw = json.dumps(body).encode()
        parts = [{"type": "http.request", "body": raw[:5], "more_body": True}, {"type": "http.request", "body": raw[5:]}]
        given = {**(headers or {}), "Content-Length": str(len(raw))}

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "query_string": query.encode(), "app": self,
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }  # fmt: skip
        asyncio.run(self._middleware(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, json.loads(sent[1]["body"])


def row(served: ServedSteering, language: str) -> str:
    return f"{served.factors.factors_hash(language)}/{language}"


@pytest.mark.parametrize(
    ("body", "headers", "query"),
    [
        ({"vllm_xargs": {"clas_language": "hi"}}, {}, ""),
        ({"vllm_xargs": {"clas_language": "Hindi"}}, {"X-CLAS-Language": "de"}, ""),
        ({}, {"X-CLAS-Language": "hi-IN"}, ""),
        ({}, {}, "clas_language=hin"),
        ({"vllm_xargs": {"clas_language": "detect"}}, {}, ""),
        ({"prompt": ["", HINDI]}, {"X-CLAS-Language": "detect"}, ""),
    ],
)
def test_a_language_becomes_a_row(body: Any, headers: dict[str, str], query: str, served: ServedSteering) -> None:
    server = Server(served)
    status, told, _ = server.post({"prompt": HINDI, "max_tokens": 3, **body}, headers, query)
    assert (status, told["x-clas-steered"]) == (200, "hi")
    (seen,) = server.seen
    assert seen == {"prompt": HINDI, "max_tokens": 3, **body, "vllm_xargs": {"clas": row(served, "hi")}}
    assert server.loaded[0].rows == served.tables.rows


def test_what_a_user_wrote_tells_the_language_of_a_conversation(served: ServedSteering) -> None:
    server = Server(served)
    turns = [
        {"role": "system", "content": "You are a helpful assistant who answers every question in one plain English sentence."},
        {"role": "user", "content": [{"type": "text", "text": HINDI}]},
    ]
    assert server.post({"messages": turns}, {"X-CLAS-Language": "detect"})[1]["x-clas-steered"] == "hi"


@pytest.mark.parametrize(
    ("method", "place", "operands"),
    [
        ("arithmetic", "neurons", ("shifts",)),
        ("int-mu", "neurons", ("factors", "shifts")),
        ("diffmean", "outputs", ("shifts",)),
        ("random-direction", "outputs", ("shifts",)),
    ],
)
def test_methods_that_add_are_served_by_vectors(
    method: str, place: str, operands: tuple[str, ...], full: MaskSet, tmp_path: Path
) -> None:
    served = ServedSteering(str(full.save(tmp_path / "masks") or tmp_path / "masks"), {"alpha": "0.5", "method": method})
    server = Server(served)
    assert server.post({"prompt": HINDI}, {"X-CLAS-Language": "hi"})[1]["x-clas-steered"] == "hi"
    (loaded,) = server.loaded
    assert (loaded.place, loaded.room.operands) == (place, operands)
    shifts = served.factors.shifts("hi")
    assert shifts is not None
    at = 1 + loaded.rows.index(server.seen[0]["vllm_xargs"]["clas"])
    for layer in loaded.room.layers:
        assert torch.equal(loaded.tables["shifts"][layer][at], shifts[layer])


def test_without_a_language_nothing_is_changed(served: ServedSteering) -> None:
    server = Server(served)
    bodies = [{"prompt": HINDI}, {"prompt": HINDI, "vllm_xargs": {"a": 1}}, {"model": "m", "tokens": [1]}]
    for body in bodies:
        status, told, _ = server.post(body)
        assert (status, told["x-clas-steered"]) == (200, "no")
    assert server.seen == bodies
    assert not server.loaded


def test_the_anchor_and_a_language_that_is_detected_but_not_in_the_masks_are_not_steered(served: ServedSteering) -> None:
    server = Server(served)
    french = "La rivière est montée pendant la nuit et la route a été fermée, alors les gens sont rentrés chez eux."
    for prompt, language in ((HINDI, "en"), (french, "detect")):
        assert server.post({"prompt": prompt}, {"X-CLAS-Language": language})[1]["x-clas-steered"] == "no"
    assert [one.get("vllm_xargs") for one in server.seen] == [None, None]


def test_a_server_may_have_a_language_for_whoever_names_none(folder: str) -> None:
    server = Server(ServedSteering(folder, {"alpha": 2}, "detect"))
    assert server.post({"prompt": HINDI})[1]["x-clas-steered"] == "hi"
    assert server.post({"prompt": HINDI}, {"X-CLAS-Language": "de"})[1]["x-clas-steered"] == "de"
    assert len(server.loaded) == 1


def test_what_generates_no_text_is_left_alone(served: ServedSteering) -> None:
    server = Server(served)
    for path in ("/tokenize", "/v1/embeddings", "/pooling", "/inference/v1/generate"):
        status, told, _ = server.post({"prompt": HINDI}, {"X-CLAS-Language": "hi"}, path=path)
        assert (status, "x-clas-steered" in told) == (200, False)
    assert server.seen == [{"prompt": HINDI}] * 4
    assert not server.loaded
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        assert server.post({"messages": HINDI}, {"X-CLAS-Language": "hi"}, path=path)[1]["x-clas-steered"] == "hi"


def test_a_server_that_detects_leaves_prompts_of_tokens_alone(folder: str) -> None:
    server = Server(ServedSteering(folder, {"alpha": 2}, "detect"))
    status, told, _ = server.post({"prompt": [1, 2, 3]})
    assert (status, told["x-clas-steered"]) == (200, "no")
    assert server.seen == [{"prompt": [1, 2, 3]}]


@pytest.mark.parametrize("path", ["/v1/completions", "/inference/v1/generate", "/v1/chat/completions/batch"])
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a", "vllm_xargs": {"clas": "x/hi"}},
        {"token_ids": [1], "sampling_params": {"extra_args": {"clas": "x/hi"}}},
        {"requests": [{"prompt": "a", "vllm_xargs": {"clas": None}}]},
    ],
)
def test_a_row_that_a_client_names_never_reaches_the_engine(path: str, body: Any, served: ServedSteering) -> None:
    server = Server(served)
    status, _, answer = server.post(body, path=path)
    assert (status, answer["error"]["message"][:39]) == (400, "A request names its language as 'clas_l")
    assert not server.seen


REFUSED = {
    "'qqqq' is not a language; give a code or a name, e.g. hi or Hindi, or 'detect'.": ({"prompt": "a"}, "qqqq"),
    "The masks have no language 'fr', only en, hi, de, zh; profile it or use another.": ({"prompt": "a"}, "fr"),
    "A language is detected on the text of a prompt, and this prompt has none; name the language.": (
        {"prompt": [1, 2, 3]},
        "detect",
    ),
    "A request names its language as 'clas_language', not factors as 'clas'.": (
        {"prompt": "a", "vllm_xargs": {"clas": "x/hi"}},
        "hi",
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_mistakes_are_answered_with_a_sentence(sentence: str, served: ServedSteering) -> None:
    body, language = REFUSED[sentence]
    server = Server(served)
    status, _, answer = server.post(body, {"X-CLAS-Language": language})
    assert (status, answer["error"]["message"]) == (400, sentence)
    assert not server.seen


def test_what_cannot_be_served_is_refused_before_anything_is_loaded(folder: str, checkpoint: Path) -> None:
    def arguments(options: dict[str, Any], language: str | None = None, *more: str) -> list[str]:
        return server_arguments(str(checkpoint), ServedSteering(folder, options, language), more)

    given = arguments({"alpha": 1.0}, None, "--port", "8001")
    assert given[:2] == ["serve", str(checkpoint)]
    assert given[-2:] == ["--port", "8001"]
    with pytest.raises(ClasError, match="A server knows no tasks, and tuned strengths are by task"):
        arguments({"alpha": "tuned"})
    with pytest.raises(ClasError, match=r"method=incline adds a linear map of the activation, .*; choose another method\.$"):
        arguments({"alpha": 0.1, "method": "incline"})
    with pytest.raises(ClasError, match="Nothing would be steered"):
        arguments({"alpha": 0})
    with pytest.raises(ClasError, match="--worker-cls is what steers in vLLM, so it cannot be another; drop it"):
        arguments({"alpha": 1}, None, "--worker-cls=x.Y")
    with pytest.raises(ClasError, match="The masks have no language 'fr'"):
        arguments({"alpha": 1}, "fr")
