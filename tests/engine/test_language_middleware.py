"""Between a client and vLLM's server: languages become rows, and nothing else is touched. Without vLLM."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.row_tables import RowTables
from lm_eval_clas.engine.server import server_start
from lm_eval_clas.engine.server.language_middleware import LanguageMiddleware
from lm_eval_clas.engine.server.served_steering import VARIABLE, ServedSteering
from lm_eval_clas.engine.server.server_start import refuse_arguments, server_arguments

HINDI = "नदी रात में बढ़ी और पुल बंद कर दिया गया, इसलिए लोग घर लौट आए।"


@pytest.fixture
def folder(masks: MaskSet, tmp_path: Path) -> str:
    return str(masks.save(tmp_path / "masks") or tmp_path / "masks")


@pytest.fixture
def served(folder: str) -> ServedSteering:
    return ServedSteering(folder, {"alpha": "-2", "specific_scope": "own"})


class Server:
    """What vLLM's server is told, and its engine."""

    def __init__(self, served: ServedSteering, weak: str | None = None) -> None:
        self._weak = weak
        self.seen: list[Any] = []
        self.loaded: list[RowTables] = []
        self.looks: list[list[str]] = []
        self.fault: Exception | None = None
        self.state = SimpleNamespace(engine_client=self)
        self._middleware = LanguageMiddleware(self._answer, served)

    async def collective_rpc(self, method: str, args: tuple[bytes, ...]) -> list[dict[str, list[int]]]:
        """As two stages answer, the first of which has no layer that is steered."""
        if method == "clas_require_steered":
            self.looks.append(*args)  # type: ignore[arg-type]
            if self.fault is not None:
                raise self.fault
            return []
        assert method == "clas_load"
        tables = RowTables.read(*args)
        self.loaded.append(tables)
        layers = {name: [] if name.endswith(f"/{self._weak}") else list(tables.room.layers) for name in tables.rows}
        return [{name: [] for name in tables.rows}, layers]

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        length = dict(scope["headers"]).get(b"content-length", b"0")
        assert int(length) == len(message["body"])
        self.seen.append(message["body"] if message["body"].startswith(b"--") else json.loads(message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def post(
        self, body: Any, headers: dict[str, str] | None = None, query: str = "", path: str = "/v1/completions", root: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and content of the answer."""
        sent: list[Any] = []
        # In two parts, as large bodies come.
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = [{"type": "http.request", "body": raw[:5], "more_body": True}, {"type": "http.request", "body": raw[5:]}]
        given = {**(headers or {}), "Content-Length": str(len(raw))}

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "root_path": root, "query_string": query.encode(), "app": self,
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
        ({"extra_body": {"vllm_xargs": {"clas_language": "hi"}}}, {}, ""),  # as the client of OpenAI has it, sent as it stands
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


def test_what_does_without_the_model_is_left_alone(folder: str) -> None:
    server = Server(ServedSteering(folder, {"alpha": 2}, "hi"))
    for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens", "/v1/responses/resp_1/cancel"):
        status, told, _ = server.post({"prompt": HINDI}, {"X-CLAS-Language": "hi"}, path=path)
        assert (status, "x-clas-steered" in told) == (200, False)
    assert server.seen == [{"prompt": HINDI}] * 4
    assert server.post({}, path="/reset_prefix_cache")[0] == 200  # a server's own language is for what generates
    assert not server.loaded


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/invocations", "/v1/completions/"])
def test_wherever_rows_reach_the_engine_requests_are_steered(path: str, served: ServedSteering) -> None:
    server = Server(served)
    assert server.post({"messages": HINDI}, {"X-CLAS-Language": "hi"}, path=path)[1]["x-clas-steered"] == "hi"
    assert server.seen[0]["vllm_xargs"] == {"clas": row(served, "hi")}


FORM = b"""--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\xff\x00\r\n--x\r\nContent-Disposition: form-data; """
ELSEWHERE: dict[str, tuple[str, Any, str | None]] = {
    "a batch": ("/v1/chat/completions/batch", {"messages": [[{"role": "user", "content": HINDI}]]}, "hi"),
    "in its body": ("/v1/chat/completions/batch", {"messages": [], "vllm_xargs": {"clas_language": "hi"}}, None),
    "Cohere's": ("/cohere/v2/chat", {"messages": []}, "detect"),
    "tokens": ("/inference/v1/generate", {"sampling_params": {"extra_args": {"clas_language": "hi"}}}, None),
    "a form": ("/v1/audio/transcriptions", FORM + b'name="vllm_xargs"\r\n\r\n{"clas_language": "hi"}\r\n--x--', None),
    "a client's form": ("/v1/audio/translations", FORM + b'name="vllm_xargs[clas_language]"\r\n\r\nhi\r\n--x--', None),
    "a route that nobody knows": ("/v9/answers", {}, "hi"),
    "embeddings": ("/v1/embeddings", {"input": HINDI}, "hi"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_language_that_is_named_is_never_ignored(what: str, served: ServedSteering) -> None:
    path, body, header = ELSEWHERE[what]
    server = Server(served)
    status, _, answer = server.post(body, {"X-CLAS-Language": header} if header else {}, path=path)
    assert status == 400
    assert answer["error"]["message"] == (
        f"What '{path}' answers is not steered, and this request names a language; ask /v1/completions, /v1/chat/completions, "
        "/v1/responses, /v1/messages or /invocations, or name none."
    )
    assert not server.seen


def test_what_is_not_steered_says_so_where_nobody_asked_for_more(served: ServedSteering) -> None:
    server = Server(served)
    form = FORM + b'name="model"\r\n\r\nm\r\n--x--'
    for path, body, header in (
        ("/v1/chat/completions/batch", {"messages": [[]]}, None),
        ("/inference/v1/generate", {"token_ids": [1]}, "en"),
        ("/v1/audio/transcriptions", form, None),
    ):
        status, told, _ = server.post(body, {"X-CLAS-Language": header} if header else {}, path=path)
        assert (status, told["x-clas-steered"]) == (200, "no")
    assert server.seen == [{"messages": [[]]}, {"token_ids": [1]}, form]


@pytest.mark.parametrize("language", ["hi", "detect"])
def test_nor_is_a_server_s_own_language_ignored(language: str, folder: str) -> None:
    server = Server(ServedSteering(folder, {"alpha": 2}, language))
    for path in ("/v1/chat/completions/batch", "/inference/v1/generate"):
        status, _, answer = server.post({"messages": [[]]}, path=path)
        assert (status, answer["error"]["message"]) == (
            400,
            f"What '{path}' answers is not steered, and this server steers requests that name no language (by --language "
            f"{language}); ask /v1/completions, /v1/chat/completions, /v1/responses, /v1/messages or /invocations, or name "
            "'en', the anchor.",
        )
        assert server.post({"messages": [[]]}, {"X-CLAS-Language": "en"}, path=path)[1]["x-clas-steered"] == "no"


def test_nor_where_sound_is_sent_as_it_comes(served: ServedSteering) -> None:
    def opened(**headers: str) -> list[Any]:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        async def send(message: Any) -> None:
            sent.append(message)

        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/v1/realtime", "query_string": b"", "headers": given}
        asyncio.run(LanguageMiddleware(app, served)(scope, None, send))  # type: ignore[arg-type]
        return sent

    assert opened() == [{"type": "websocket.accept"}]
    begun, answered = opened(x_clas_language="hi")
    assert (begun["type"], begun["status"]) == ("websocket.http.response.start", 400)
    assert "What '/v1/realtime' answers is not steered" in json.loads(answered["body"])["error"]["message"]


def test_a_server_whose_engine_does_not_steer_answers_no_more(
    served: ServedSteering, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, hindi = Server(served), {"X-CLAS-Language": "hi"}
    now = [1000.0]
    monkeypatch.setattr("lm_eval_clas.engine.server.language_middleware.time.monotonic", lambda: now[0])
    assert server.post({"prompt": "a"})[0] == 200
    assert not server.looks
    for _ in range(3):
        assert server.post({"prompt": "a"}, hindi)[0] == 200
    assert server.looks == [list(served.tables.rows)]  # after the first answer, and then once a minute
    server.fault = RuntimeError("Layer 3 steered 0 positions of the 7 that vLLM ran for 'x/hi', so there is no score\nat ...")
    now[0] += 61
    assert server.post({"prompt": "a"}, hindi)[0] == 200
    assert caplog.messages == [f"clas serve: {str(server.fault).splitlines()[0]}"]
    for headers in (hindi, {}):
        status, _, answer = server.post({"prompt": "a"}, headers)
        assert (status, answer["error"]["code"], answer["error"]["message"]) == (
            500,
            500,
            "The engine of this server did not steer every token as it was asked to (the server's log says where), so no more "
            "is answered; start it again.",
        )
    assert server.post({"prompt": "a"}, path="/tokenize")[0] == 200
    assert len(server.looks) == 2


@pytest.mark.parametrize(
    ("path", "steered"),
    [
        ("/llm/v1/completions", "hi"),
        ("/v1/completions", "hi"),  # of a proxy that leaves the root out
        ("/llm/tokenize", None),
        ("/llmv1/completions", "refused"),
        ("/other/v1/completions", "refused"),
        ("/llm", "refused"),
    ],
)
def test_a_server_may_be_below_a_root_path(path: str, steered: str | None, served: ServedSteering) -> None:
    server = Server(served)
    status, told, _ = server.post({"prompt": HINDI}, {"X-CLAS-Language": "hi"}, path=path, root="/llm")
    if steered == "refused":
        assert (status, server.seen) == (400, [])
        return
    assert (status, told.get("x-clas-steered")) == (200, steered)
    assert server.seen[0].get("vllm_xargs") == ({"clas": row(served, "hi")} if steered else None)


def test_a_prompt_of_embeddings_is_steered_by_a_language_that_is_named(served: ServedSteering) -> None:
    server = Server(served)
    embedded = {"prompt_embeds": "UEsDBAAACAgAAAAAAAAA", "max_tokens": 3}
    assert server.post(embedded, {"X-CLAS-Language": "hi"})[1]["x-clas-steered"] == "hi"
    assert server.seen == [{**embedded, "vllm_xargs": {"clas": row(served, "hi")}}]
    status, _, answer = server.post(embedded, {"X-CLAS-Language": "detect"})
    assert (status, answer["error"]["message"][:50]) == (400, "A language is detected on the text of a prompt, an")
    assert server.post(embedded)[1]["x-clas-steered"] == "no"


def test_a_server_that_detects_leaves_prompts_of_tokens_alone(folder: str) -> None:
    server = Server(ServedSteering(folder, {"alpha": 2}, "detect"))
    status, told, _ = server.post({"prompt": [1, 2, 3]})
    assert (status, told["x-clas-steered"]) == (200, "no")
    assert server.seen == [{"prompt": [1, 2, 3]}]


@pytest.mark.parametrize("path", ["/v1/completions", "/inference/v1/generate", "/v1/chat/completions/batch"])
@pytest.mark.parametrize(
    "body",
    [
        FORM + b'name="vllm_xargs"\r\n\r\n{"clas": "x/hi"}\r\n--x--',
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


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_beam_search_is_refused_where_it_would_be_steered(path: str, served: ServedSteering) -> None:
    """vLLM makes the parameters of its beams anew, without what the request names."""
    server = Server(served)
    beams = {"prompt": "a", "use_beam_search": True, "n": 2}
    status, _, answer = server.post({**beams, "vllm_xargs": {"clas_language": "hi"}}, path=path)
    assert (status, answer["error"]["message"]) == (
        400,
        "Beam search is not steered: vLLM runs its beams without what a request names; drop use_beam_search, or name no "
        "language (this request is for 'hi').",
    )
    assert not server.seen
    for headers in ({}, {"X-CLAS-Language": "en"}):
        status, told, _ = server.post(beams, headers, path=path)
        assert (status, told["x-clas-steered"]) == (200, "no")


@pytest.mark.parametrize("sentence", REFUSED)
def test_mistakes_are_answered_with_a_sentence(sentence: str, served: ServedSteering) -> None:
    body, language = REFUSED[sentence]
    server = Server(served)
    status, _, answer = server.post(body, {"X-CLAS-Language": language})
    assert (status, answer["error"]["message"]) == (400, sentence)
    assert not server.seen


def test_a_language_whose_factors_are_all_1_in_the_engine_is_refused(served: ServedSteering) -> None:
    server = Server(served, weak="hi")
    for _ in range(2):
        status, _, answer = server.post({"prompt": "a"}, {"X-CLAS-Language": "hi"})
        assert (status, answer["error"]["message"]) == (
            400,
            "Requests in 'hi' are to be steered so weakly that nothing would change in the dtype of the model; start the "
            "server with a larger --alpha, or with --dtype float32.",
        )
    assert not server.seen
    assert server.post({"prompt": "a"}, {"X-CLAS-Language": "de"})[1]["x-clas-steered"] == "de"
    assert len(server.loaded) == 1


def test_masks_that_are_others_than_when_the_server_was_started(
    folder: str, masks: MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another bridge layer, for which the engine has no room; the names of rows are of the factors of all layers."""
    options = {"alpha": "-2", "specific_scope": "own"}
    monkeypatch.setenv(VARIABLE, "")
    ServedSteering(folder, options).to_environment()
    assert Server(ServedSteering.from_environment()).post({"prompt": "a"}, {"X-CLAS-Language": "hi"})[0] == 200
    other = masks.config.model_copy(update={"bridge_layers": [layer - 1 for layer in masks.config.bridge_layers]})
    MaskSet(other, masks.active).save(Path(folder))
    server = Server(ServedSteering.from_environment())
    status, _, answer = server.post({"prompt": "a"}, {"X-CLAS-Language": "hi"})
    assert (status, answer["error"]["message"]) == (
        400,
        f"The masks in '{folder}', or their strengths, are others than when this server was started, so it cannot steer; start "
        "it again.",
    )
    assert not server.loaded
    assert server.post({"prompt": "a"})[1]["x-clas-steered"] == "no"


def test_what_cannot_be_served_is_refused_before_anything_is_loaded(folder: str) -> None:
    def arguments(options: dict[str, Any], language: str | None = None, *more: str) -> list[str]:
        return server_arguments("a/model", ServedSteering(folder, options, language), more)

    given = arguments({"alpha": 1.0}, None, "--port", "8001")
    assert given[:2] == ["serve", "a/model"]
    assert given[-2:] == ["--port", "8001"]
    with pytest.raises(ClasError, match="A server knows no tasks, and tuned strengths are by task"):
        arguments({"alpha": "tuned"})
    with pytest.raises(ClasError, match=r"method=incline adds a linear map of the activation, .*; choose another method\.$"):
        arguments({"alpha": 0.1, "method": "incline"})
    with pytest.raises(ClasError, match="Nothing would be steered"):
        arguments({"alpha": 0})
    with pytest.raises(ClasError, match="The masks have no language 'fr'"):
        arguments({"alpha": 1}, "fr")


def read(model: Path, served: ServedSteering, **changed: Any) -> Namespace:
    """Arguments as vLLM hands them out."""
    config = served.factors.masks.config
    ours = engine_arguments(served.tables, config.site, config.projection)
    others = {"model_tag": str(model), "revision": None, "trust_remote_code": False, "grpc": False}
    return Namespace(**{**ours, **others, **changed})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"worker_cls": "x.Y"}, "--worker-cls is what steers in vLLM, so it cannot be another; drop it."),
        ({"scheduler_cls": None}, "--scheduler-cls is what steers in vLLM, so it cannot be another; drop it."),
        ({"additional_config": {"foo": 1}}, "--additional-config is what steers in vLLM, so it cannot be another; drop it."),
        ({"grpc": True}, "--grpc starts a server that knows no languages, so that no request would be steered; drop it."),
    ],
)
def test_arguments_under_which_nothing_would_be_steered(
    changed: dict[str, Any], sentence: str, served: ServedSteering, checkpoint: Path
) -> None:
    refuse_arguments(read(checkpoint, served), served)
    with pytest.raises(ClasError) as told:
        refuse_arguments(read(checkpoint, served, **changed), served)
    assert str(told.value) == sentence


def test_a_front_end_without_middleware(served: ServedSteering, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "0")
    refuse_arguments(read(checkpoint, served), served)
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ClasError, match="VLLM_USE_RUST_FRONTEND starts a server that knows no languages"):
        refuse_arguments(read(checkpoint, served), served)


def test_masks_of_another_model(served: ServedSteering, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(server_start, "require_fit", lambda masks, *how: asked.append(how))
    refuse_arguments(read(checkpoint, served, revision="v2", trust_remote_code=True), served)
    assert asked == [("neurons", str(checkpoint), "v2", True)]
    monkeypatch.undo()
    with pytest.raises(ClasError, match="Cannot read the configuration of the model 'no/model'"):
        refuse_arguments(read(Path("no/model"), served), served)
