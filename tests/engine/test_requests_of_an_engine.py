"""What happens to requests inside vLLM: chunks, interruptions, and the cache of prefixes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from small_engines import BLOCK, MISSING, STEERING, TEXTS, questions

from lm_eval_clas.base.errors import ClasError

pytest.importorskip("vllm", reason=MISSING)

from vllm import SamplingParams, TokensPrompt

from lm_eval_clas.engine import scheduler
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT

LONG = (TEXTS["hi"] * 10).encode()  # well over a block of the cache


def prompt(salt: str | None = None) -> TokensPrompt:
    """A prompt of bytes, as the small tokenizer has them."""
    tokens = [1, *(3 + byte % 250 for byte in LONG[: 2 * BLOCK + 40])]
    return TokensPrompt(prompt_token_ids=tokens, **({"cache_salt": salt} if salt else {}))


def logprobs(lm: Any, name: str | None, salt: str | None = None) -> list[dict[int, float]]:
    """What a request gets that names a row and nothing else, sent straight to the engine."""
    extra = {EXTRA_ARGUMENT: name} if name else None
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=3, detokenize=False, extra_args=extra)
    (output,) = lm.model.generate([prompt(salt)], params, use_tqdm=False)
    found = output.outputs[0].logprobs
    cached.append(output.num_cached_tokens or 0)
    return [{token: one.logprob for token, one in step.items()} for step in found]


cached: list[int] = []


def rows(lm: Any) -> dict[str, str]:
    """The name of the row of each language."""
    return {name.partition("/")[2]: name for name in lm.changes}


@pytest.fixture
def fresh(steered: Any) -> Any:
    """The engine with nothing cached."""
    assert steered.model.reset_prefix_cache()
    return steered


def test_no_request_reads_the_prefix_of_another_row(fresh: Any) -> None:
    """Nobody sets a salt here: it is set where requests enter the engine."""
    names = [None, *rows(fresh).values()]
    alone = []
    for name in names:
        fresh.model.reset_prefix_cache()
        alone.append(logprobs(fresh, name))
    assert all(alone[0] != other for other in alone[1:])
    fresh.model.reset_prefix_cache()
    cached.clear()
    assert [logprobs(fresh, name) for name in names] == alone
    assert cached == [0] * len(names)
    again = [logprobs(fresh, name) for name in names]
    assert cached[len(names) :] == [2 * BLOCK] * len(names)  # each finds its own
    for one, other in zip(again, alone, strict=True):
        assert [list(step) for step in one] == [list(step) for step in other]


def test_without_the_salt_it_would(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected, *_) = logprobs(fresh, rows(fresh)["hi"])
    fresh.model.reset_prefix_cache()
    monkeypatch.setattr(scheduler, "salt", lambda request: None)
    cached.clear()
    logprobs(fresh, None)
    (found, *_) = logprobs(fresh, rows(fresh)["hi"])
    assert cached == [0, 2 * BLOCK]
    # Not what arithmetic in another order would do: of the first token, which both chose after the same prompt.
    likeliest = max(expected, key=lambda token: expected[token])
    assert likeliest not in found or abs(found[likeliest] - expected[likeliest]) > 1e-3
    fresh.model.reset_prefix_cache()


def test_a_salt_of_the_sender_stays_apart_from_ours(fresh: Any) -> None:
    name = rows(fresh)["hi"]
    expected = logprobs(fresh, None)
    logprobs(fresh, name)
    cached.clear()
    assert logprobs(fresh, None, salt=f"clas {name.partition('/')[0]}") == expected
    assert cached == [0]


def test_requests_that_were_interrupted_keep_their_row(
    start: Callable[..., Any], steered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight long answers at once do not fit into this cache, so that some are put off and begun again."""
    small = start(**STEERING, max_num_seqs=8, num_gpu_blocks_override=9)
    core = small.model.llm_engine.engine_core.engine_core.scheduler
    interrupted = []
    original = core._preempt_request
    monkeypatch.setattr(
        core, "_preempt_request", lambda request, *args, **kw: (interrupted.append(request), original(request, *args, **kw))[1]
    )
    asked = [*questions(3, 150), *questions(4, 150)]
    assert small.generate_until(asked) == steered.generate_until(asked)
    assert any((one.sampling_params.extra_args or {}).get(EXTRA_ARGUMENT) for one in interrupted)


def test_prompts_that_run_in_chunks(start: Callable[..., Any], steered: Any) -> None:
    """The shared engine has 96 tokens for a step; this one takes each prompt whole."""
    whole = start(**STEERING, max_num_batched_tokens=2048)
    asked = questions(6)
    assert max(len(one.args[0].encode()) for one in asked) > 96
    assert whole.generate_until(asked) == steered.generate_until(asked)


def test_names_that_are_not_there_give_no_score_and_do_not_end_the_engine(fresh: Any) -> None:
    expected = logprobs(fresh, None)
    fresh.take_counts()
    assert fresh.model.reset_prefix_cache()
    assert logprobs(fresh, "x/y") == expected
    with pytest.raises(
        ClasError, match=r"Layer 2 steered 0 positions of the \d+ that vLLM ran for 'x/y', so there is no score"
    ):
        fresh.take_counts()
    assert fresh.model.reset_prefix_cache()
    assert logprobs(fresh, None) == expected
    assert fresh.take_counts() == {}


def test_counts_can_be_compared_while_an_engine_serves(fresh: Any) -> None:
    """What a client made up is no reason to answer nobody any more."""
    names = list(rows(fresh).values())
    fresh.take_counts()
    for name in (None, *names, "x/y"):
        logprobs(fresh, name)
        fresh.model.collective_rpc("clas_require_steered", args=(names,))
    with pytest.raises(ClasError, match=r"steered 0 positions of the \d+ that vLLM ran for 'x/y'"):
        fresh.model.collective_rpc("clas_require_steered", args=([*names, "x/y"],))
    with pytest.raises(ClasError, match="'x/y', so there is no score"):
        fresh.take_counts()
