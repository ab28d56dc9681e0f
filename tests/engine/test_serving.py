"""`clas serve` as a whole: the harness's client against it gives the numbers of `vllm-clas`. Slow."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from small_engines import BLOCK, MISSING, STARTING, STEERING, TEXTS

from lm_eval_clas import MaskSet
from lm_eval_clas.disk.files import PACKAGE, shipped
from lm_eval_clas.engine.server.language_middleware import NEVER_STEERED, STEERED_AT

pytest.importorskip("vllm", reason=MISSING)


def command(checkpoint: Path, masks: MaskSet, folder: Path, *more: str) -> list[Any]:
    """`clas serve` with the masks, which are written into a folder."""
    options = {name.replace("_", "-"): value for name, value in STARTING.items() if name != "enforce_eager"}
    return [
        *(sys.executable, "-m", "lm_eval_clas", "serve", str(checkpoint), "--masks", str(masks.save(folder / "masks"))),
        *(f"--{name.replace('_', '-')}={value}" for name, value in STEERING.items()),
        *(f"--{name}={value}" for name, value in options.items()),
        *("--enforce-eager", "--served-model-name", "small", "--host", "127.0.0.1", *more),
    ]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "VLLM_SERVER_DEV_MODE": "1"}


@pytest.fixture(scope="module")
def server(engine_checkpoint: Path, engine_masks: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(engine_checkpoint, engine_masks, tmp_path_factory.mktemp("served")) as address:
        yield address


@contextmanager
def served(checkpoint: Path, masks: MaskSet, folder: Path, *more: str) -> Iterator[str]:
    """The address of a server, inside it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = command(checkpoint, masks, folder, "--port", str(port), *more)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(given, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise TimeoutError(log.read_text(errors="replace")[-3000:])


def post(address: str, body: dict[str, Any], **headers: str) -> tuple[int, str | None, Any]:
    """Status, what it was steered for, and the answer."""
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(address, json.dumps({"model": "small", **body}).encode(), given)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers["X-CLAS-Steered"], json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None, json.load(error)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "hi"])
def test_the_harness_s_client_gets_the_numbers_of_the_model_class(
    language: str, server: str, engine_checkpoint: Path, start: Any
) -> None:
    """On German texts, which are short enough in bytes, under the factors of either language."""

    def samples(lm: Any, **arguments: Any) -> list[Any]:
        found = simple_evaluate(
            model=lm, tasks=["clas_mini_qa_de", "clas_mini_nli_de"], limit=3, bootstrap_iters=0, log_samples=True,
            task_manager=TaskManager(include_path=str(shipped("tasks")), include_defaults=False), **arguments,
        )  # fmt: skip
        return [answer for task in found["samples"].values() for one in task for answer in one["resps"]]

    client = {
        "model": "small", "base_url": f"{server}/completions?clas_language={language}", "tokenizer": str(engine_checkpoint),
    }  # fmt: skip
    over_network = samples("local-completions", model_args={**client, "tokenized_requests": True, "add_bos_token": True})
    here = samples(start(**STEERING, language=language))
    assert {type(one) for (one,) in here} == {str, tuple}
    for (ours,), (theirs,) in zip(over_network, here, strict=True):
        if isinstance(ours, str):
            assert ours == theirs
        else:
            assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
            assert ours[1] == theirs[1]


def empty_cache(server: str) -> None:
    """Empties the engine's cache of prefixes, which a server in development mode allows."""
    with urllib.request.urlopen(urllib.request.Request(f"{server[:-3]}/reset_prefix_cache", method="POST"), timeout=60):
        pass


def hits(server: str) -> float:
    """Tokens of prompts that the cache of prefixes had, so far."""
    with urllib.request.urlopen(f"{server[:-3]}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))


@pytest.mark.slow
def test_requests_do_not_read_each_other_s_prefixes(server: str) -> None:
    body = {"prompt": TEXTS["hi"] * 5, "max_tokens": 6, "temperature": 0, "logprobs": 1}
    assert len(body["prompt"].encode()) > 256

    def scores(language: str | None) -> list[float]:
        named = {"X_CLAS_Language": language} if language else {}
        status, steered, answer = post(f"{server}/completions", body, **named)
        assert (status, steered) == (200, language or "no")
        return answer["choices"][0]["logprobs"]["token_logprobs"]  # type: ignore[no-any-return]

    languages = (None, "hi", "de")
    alone = {}
    for language in languages:
        empty_cache(server)
        alone[language] = scores(language)
    for one, other in ((None, "hi"), ("hi", "de"), (None, "de")):  # of the first token, after the same prompt
        assert abs(alone[one][0] - alone[other][0]) > 1e-3
    empty_cache(server)
    before = hits(server)
    for language in languages:  # each after the others' blocks are there
        assert scores(language) == pytest.approx(alone[language], rel=1e-5, abs=1e-6)
    assert hits(server) == before
    for language in languages:
        assert scores(language) == pytest.approx(alone[language], rel=1e-5, abs=1e-6)
    assert hits(server) - before >= len(languages) * 2 * BLOCK  # its own


@pytest.mark.slow
def test_replicas_answer_as_one_engine_does(
    server: str, engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path
) -> None:
    """Each has the factors, and each has answered."""
    asked = [(language, 2 + length) for length in range(4) for language in ("en", "hi", "de", "zh")]

    def answer(address: str, language: str, repeat: int) -> str:
        body = {"prompt": TEXTS[language] * repeat, "max_tokens": 12, "temperature": 0}
        status, steered, found = post(f"{address}/completions", body, X_CLAS_Language=language)
        assert (status, steered) == (200, "no" if language == "en" else language)
        return found["choices"][0]["text"]  # type: ignore[no-any-return]

    expected = [answer(server, *one) for one in asked]
    with served(engine_checkpoint, engine_masks, tmp_path, "--data-parallel-size", "2") as two, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: answer(two, *one), asked * 2)) == expected * 2
        with urllib.request.urlopen(f"{two[:-3]}/metrics", timeout=60) as metrics:
            lines = [line for line in metrics.read().decode().splitlines() if line.startswith("vllm:prompt_tokens_total")]
    assert len(lines) == 2
    assert all(float(line.split()[-1]) > 0 for line in lines), lines


@pytest.mark.slow
def test_the_openai_client_and_mistakes(server: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=server, api_key="-")
    asked = {"model": "small", "prompt": TEXTS["hi"], "max_tokens": 8, "temperature": 0}
    texts = [
        client.completions.create(**asked, extra_body={"vllm_xargs": {"clas_language": one}} if one else None).choices[0].text
        for one in (None, "hi", "detect")
    ]
    assert texts[0] != texts[1] == texts[2]
    status, _, answer = post(f"{server}/completions", asked, X_CLAS_Language="fr")
    assert (status, answer["error"]["message"][:34]) == (400, "The masks have no language 'fr', o")


@pytest.mark.slow
def test_every_route_that_generates_steers_or_refuses_a_language(server: str) -> None:
    """By the names that vLLM's own server has for them."""
    root = server.removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/openapi.json", timeout=60) as answer:
        routes = {path for path, methods in json.load(answer)["paths"].items() if "post" in methods}
    assert set(STEERED_AT) <= routes
    here = set(NEVER_STEERED) & routes  # others come with what a model or an installation can do
    assert here >= {"/v1/chat/completions/batch", "/generative_scoring", "/v1/systemone"}
    asked = {"prompt": TEXTS["hi"], "max_tokens": 8, "temperature": 0}
    texts = {}
    for path in ("/v1/completions", "/invocations"):
        for language in ("hi", "en"):
            status, steered, answered = post(f"{root}{path}", asked, X_CLAS_Language=language)
            assert (status, steered) == (200, "hi" if language == "hi" else "no")
            texts[path, language] = answered["choices"][0]["text"]
    assert texts["/v1/completions", "hi"] == texts["/invocations", "hi"] != texts["/invocations", "en"]
    for path in sorted(here):
        status, _, answered = post(f"{root}{path}", asked, X_CLAS_Language="hi")
        assert (status, answered["error"]["message"][:40]) == (400, f"What '{path}' answers is not steered"[:40])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "--enable-lora",
            "vllm-clas does not go with LoRA adapters (enable_lora); merge the adapter into the checkpoint; start",
        ),
        ("--worker-extension-cls=no.Such", "vLLM's engine, which has processes of its own, has ended; the first error in the"),
    ],
)
def test_an_engine_that_does_not_start_ends_with_a_sentence(
    option: str, sentence: str, engine_checkpoint: Path, engine_masks: MaskSet, tmp_path: Path
) -> None:
    given = command(engine_checkpoint, engine_masks, tmp_path, "--port", "0", option)
    done = subprocess.run(given, capture_output=True, text=True, timeout=550, env=ENVIRONMENT)
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1].startswith(f"Error: {sentence}")
    assert ("Traceback" in done.stderr) == ("extension" in option)
