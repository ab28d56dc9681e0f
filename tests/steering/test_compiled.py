"""A model that was compiled before the steerer came, or after, is steered like any other, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from exporting import made_masks, small_model
from transformers import PreTrainedModel

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet

pytestmark = pytest.mark.slow
IDS = torch.arange(7, 47).reshape(2, 20)
OPTIONS: dict[str, Any] = {"alpha": 3.0, "specific_scope": "own", "partial_scope": "own"}


def make_model() -> PreTrainedModel:
    """A model with a layer that is steered, one before it and one after it: compiling takes seconds a layer."""
    return small_model("llama", num_hidden_layers=3)


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    """Masks of random neurons for its middle layer."""
    return made_masks(make_model(), bridge=(1,))


@pytest.fixture(autouse=True)
def _nothing_stays_compiled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("ERROR", logger="torch.__trace")  # what pytest would collect of it takes longer than the test
    yield
    torch.compiler.reset()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def alone(masks: MaskSet, run: Callable[[PreTrainedModel], torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a model that is not compiled gives."""
    model = make_model()
    found = {"en": run(model)}
    with ActivationSteerer(model, masks, **OPTIONS) as steerer:
        for language in ("hi", "de"):
            with steerer.language(language):
                found[language] = run(model)
    assert not torch.equal(found["hi"], found["en"])
    return found


def wrapper(model: PreTrainedModel) -> Any:
    return torch.compile(model, backend="eager")


def in_place(model: PreTrainedModel) -> Any:
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("compiled", "of_wrapper", "before"),
    [
        (wrapper, False, True),
        (wrapper, True, True),
        (wrapper, False, False),
        (in_place, False, True),
    ],
)
def test_a_compiled_model_is_steered(
    masks: MaskSet, compiled: Callable[[PreTrainedModel], Any], of_wrapper: bool, before: bool
) -> None:
    answers = alone(masks, logits)
    model = make_model()
    run: Any = model
    if before:
        run = compiled(model)
        torch.testing.assert_close(logits(run), answers["en"])
    steerer = ActivationSteerer(run if of_wrapper else model, masks, **OPTIONS)
    if not before:
        run = compiled(model)
    for language in ("hi", "de", "en"):
        with steerer.language(language) as block:
            torch.testing.assert_close(logits(run), answers[language])
        assert set(block.positions.values()) <= {IDS.numel()}
    steerer.close()
    torch.testing.assert_close(logits(run), answers["en"])


def test_compiled_decoding_with_a_static_cache_is_steered(masks: MaskSet) -> None:
    from transformers.generation.configuration_utils import CompileConfig

    config = CompileConfig(backend="eager", mode=None)
    config._compile_all_devices = True  # as on a GPU
    plain = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}

    def generated(model: PreTrainedModel, **options: Any) -> torch.Tensor:
        return model.generate(IDS, **plain, **options)

    answers = alone(masks, generated)
    model = make_model()
    static = {"cache_implementation": "static", "compile_config": config}
    assert torch.equal(generated(model, **static), answers["en"])
    assert hasattr(model, "_compiled_call")  # compiled before the steerer comes
    steerer = ActivationSteerer(model, masks, **OPTIONS)
    for language in ("hi", "de", "en"):
        with steerer.language(language) as block:
            assert torch.equal(generated(model, **static), answers[language])
        assert set(block.positions.values()) <= {IDS.numel() + 2 * 5}


def test_parts_that_were_compiled_on_their_own_are_refused(masks: MaskSet) -> None:
    model = make_model()
    for layer in model.model.layers:
        layer.mlp = torch.compile(layer.mlp, backend="eager")
    logits(model)
    with pytest.raises(ClasError, match=r"down_proj' runs 0 times .* compile parts of a model only after that"):
        ActivationSteerer(model, masks, **OPTIONS)
