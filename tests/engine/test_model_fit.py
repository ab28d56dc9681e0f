"""What is refused of a model that is not loaded yet, without vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import tiny_model


@pytest.mark.skipif(transformers.__version__ < "5", reason="experts are steered with transformers 5")
def test_experts_are_refused_where_neurons_are_to_be_steered(tmp_path: Path) -> None:
    """A shared expert beside them is one row-parallel module in each layer of vLLM's, as an MLP would be."""
    model = tiny_model("qwen2_moe")
    model.config.save_pretrained(tmp_path)
    masks = random_masks(model)
    with pytest.raises(ClasError) as told:
        require_fit(masks, "neurons", str(tmp_path))
    assert str(told.value) == (
        "These masks have neurons of experts ('model.layers.0.mlp.experts'), and experts are not steered in vLLM; "
        "use --model hf-clas."
    )
    require_fit(masks, "outputs", str(tmp_path))
    require_fit(masks, None, str(tmp_path))
    require_fit(random_masks(model, pattern="*.shared_expert.down_proj"), "neurons", str(tmp_path))


def test_masks_of_another_model_are_refused_wherever_they_steer(tmp_path: Path) -> None:
    tiny_model("llama").config.save_pretrained(tmp_path)  # type: ignore[union-attr, operator]
    masks = random_masks(tiny_model("opt"))
    for place in ("neurons", "outputs", None):
        with pytest.raises(ClasError, match="was made for another model: type opt there, llama in the model that was loaded"):
            require_fit(masks, place, str(tmp_path))  # type: ignore[arg-type]
