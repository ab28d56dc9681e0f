"""Each thread, task and generator has its own language, blocks may be left in any order, and nothing stays steered."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import torch
from small_models import make_model
from transformers import PreTrainedModel

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet

IDS = torch.arange(7, 47).reshape(2, 20)
LANGUAGES = ("hi", "de", "zh")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture
def steerer(model: PreTrainedModel, masks: MaskSet) -> ActivationSteerer:
    return ActivationSteerer(model, masks, alpha=3.0, specific_scope="own", partial_scope="own")


@pytest.fixture
def answers(masks: MaskSet, steerer: ActivationSteerer) -> dict[str, torch.Tensor]:
    """What each language alone gives, and the anchor: all of them different."""
    found = {}
    model = make_model()
    with ActivationSteerer(model, masks, alpha=3.0, specific_scope="own", partial_scope="own") as alone:
        for language in (*LANGUAGES, "en"):
            with alone.language(language):
                found[language] = logits(model)
    assert not any(torch.equal(found[one], found[other]) for one in found for other in found if one != other)
    return found


def is_plain(model: torch.nn.Module, answers: dict[str, torch.Tensor]) -> bool:
    return torch.equal(logits(model), answers["en"])


def test_threads_have_languages_of_their_own(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    together = threading.Barrier(4)

    def work(language: str | None) -> list[bool]:
        found = []
        for _ in range(5):
            together.wait()
            if language is None:
                found.append(is_plain(model, answers))
                continue
            with steerer.language(language) as block:
                found.append(torch.equal(logits(model), answers[language]))
                found.append(set(block.positions.values()) == {IDS.numel()})
        return found

    with ThreadPoolExecutor(4) as pool:
        assert all(all(found) for found in pool.map(work, (*LANGUAGES, None)))
    assert is_plain(model, answers)


def test_asynchronous_tasks_have_languages_of_their_own(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    async def work(language: str) -> bool:
        found = []
        with steerer.language(language):
            for _ in range(3):
                await asyncio.sleep(0)
                found.append(torch.equal(logits(model), answers[language]))
        return all(found)

    async def every() -> list[bool]:
        return await asyncio.gather(*map(work, LANGUAGES))

    assert asyncio.run(every()) == [True] * 3
    assert is_plain(model, answers)


def test_generators_that_take_turns_keep_their_languages(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    def passes(language: str) -> Iterator[torch.Tensor]:
        with steerer.language(language):
            while True:
                yield logits(model)

    turns = {language: passes(language) for language in LANGUAGES}
    for _ in range(3):
        for language, generator in turns.items():
            assert torch.equal(next(generator), answers[language])
    with steerer.language("en"):
        assert is_plain(model, answers)
        assert torch.equal(next(turns["hi"]), answers["hi"])
    for generator in turns.values():  # the first one first
        generator.close()
    assert is_plain(model, answers)


def test_a_generator_that_nobody_finishes_steers_nothing_afterwards(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    def passes() -> Iterator[torch.Tensor]:
        with steerer.language("hi"):
            yield logits(model)

    generator = passes()
    assert torch.equal(next(generator), answers["hi"])
    del generator
    assert is_plain(model, answers)
    elsewhere = passes()
    contextvars.copy_context().run(next, elsewhere)
    assert is_plain(model, answers)
    elsewhere.close()  # in another context than it was entered in
    assert is_plain(model, answers)


def test_context_managers_around_language_work_inside_other_blocks(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    @contextmanager
    def within(language: str) -> Iterator[None]:
        with steerer.language(language):
            yield

    with steerer.language("hi"):
        with within("de"):
            assert torch.equal(logits(model), answers["de"])
            with steerer.language("zh"), within("en"):
                assert is_plain(model, answers)
            assert torch.equal(logits(model), answers["de"])
        assert torch.equal(logits(model), answers["hi"])
    with ExitStack() as stack:
        for language in LANGUAGES:
            stack.enter_context(steerer.language(language))
            assert torch.equal(logits(model), answers[language])
    assert is_plain(model, answers)


def test_blocks_may_be_left_out_of_order(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    first, second = steerer.language("hi"), steerer.language("de")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(logits(model), answers["de"])
    second.__exit__(None, None, None)
    assert is_plain(model, answers)
    assert first.positions[2] == 0
    assert second.positions[2] == IDS.numel()
    with pytest.raises(ClasError, match="is open already"), second, second:
        pass
    assert is_plain(model, answers)


def test_two_steerers_of_one_model_do_not_see_each_others_blocks(
    model: PreTrainedModel, masks: MaskSet, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    other = ActivationSteerer(model, masks, alpha=-2.0)
    with steerer.language("hi"):
        assert torch.equal(logits(model), answers["hi"])
    with other.language("hi"):
        assert not torch.equal(logits(model), answers["hi"])
    assert is_plain(model, answers)


def test_a_thread_that_runs_the_model_without_the_blocks_language_is_told(
    model: PreTrainedModel, steerer: ActivationSteerer, answers: dict[str, torch.Tensor]
) -> None:
    """As `Thread(target=model.generate)` for a streamer, or DataParallel, would do it."""
    found: list[torch.Tensor] = []

    def run() -> None:
        found.append(logits(model))

    def run_in_a_thread(copied: bool) -> None:
        with steerer.language("hi"):
            target = (contextvars.copy_context().run, run) if copied else (run,)
            thread = threading.Thread(target=target[0], args=target[1:])
            thread.start()
            thread.join()

    with pytest.raises(ClasError, match="ran in a thread that has no language, while the block for 'hi' steered nothing"):
        run_in_a_thread(copied=False)
    run_in_a_thread(copied=True)
    assert torch.equal(found[1], answers["hi"])
