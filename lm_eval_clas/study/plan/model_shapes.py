"""The shape of a recipe's model: in the recipe, on file, or in a configuration on this machine. Nothing is loaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.study.plan.known_sizes import MEASURED_TOKENIZER, known_sizes
from lm_eval_clas.study.recipe import DEMO_MODEL, StudyRecipe

_DEMO_IS = "google/gemma-3-270m"
_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class PlannedModel(NamedTuple):
    """What a plan knows of a model.

    Attributes:
        shape: None where it is not known.
        tokenizer: by which tokens are counted.
        about: where that is from, or why it is not known, in words.
    """

    shape: ModelShape | None
    tokenizer: str
    about: str


def planned_model(recipe: StudyRecipe) -> PlannedModel:
    """The model of a recipe, as far as it is known here."""
    name = _DEMO_IS if recipe.model == DEMO_MODEL else recipe.model
    known = known_sizes().models.get(name)
    shape, about = recipe.shape, "the recipe gives its shape"
    if shape is None and known is not None:
        shape, about = known.shape, f"its shape is from {known.source}"
    elif shape is None:
        shape, about = _from_configuration(recipe.model)
    if shape is not None and recipe.shape is None and (size := _asked_bytes(recipe.model_args)) is not None:
        shape = shape.model_copy(update={"bytes_per_weight": size})
    return PlannedModel(shape, known.tokenizer if known else MEASURED_TOKENIZER, about)


def _asked_bytes(model_args: str) -> int | None:
    asked = dict(one.split("=", 1) for one in model_args.split(",") if "=" in one)
    return _BYTES.get(asked.get("dtype", "").removeprefix("torch."))


def _from_configuration(model: str) -> tuple[ModelShape | None, str]:
    folder, unknown = _folder(model), f"the shape of '{model}' is unknown"
    if folder is None:
        return (
            None,
            f"the shape of '{model}' is unknown: it is not on file, and there is no configuration of it on this machine",
        )
    unknown = f"the shape of '{model}' is unknown"
    try:
        whole = read_json(folder / "config.json")
        config: dict[str, Any] = whole.get("text_config") or whole
        if any(config.get(name) for name in _EXPERTS):
            return None, f"{unknown}: it is a mixture of experts, of which not all parameters run"
        size = _BYTES[str(whole.get("dtype") or whole.get("torch_dtype") or "float32").removeprefix("torch.")]
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if not weights:
            return None, f"{unknown}: its configuration is here, and its weights are not, which tell how many parameters it has"
        heads = config["num_attention_heads"]
        shape = ModelShape(
            parameters=weights / size,
            layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            neurons=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            bytes_per_weight=size,
            tied=bool(
                whole.get("tie_word_embeddings", config.get("tie_word_embeddings", "gemma" in str(config.get("model_type"))))
            ),
        )
    except (OSError, ValueError, ValidationError, KeyError, TypeError, AttributeError):
        return None, f"{unknown}: its configuration does not say it in the names that we know"
    return shape, f"its shape is that of '{folder / 'config.json'}'"


def _folder(model: str) -> Path | None:
    """Where a model's configuration is: a folder, or the Hub's cache, which is not asked for what is not there."""
    path = user_path(model)
    if (path / "config.json").is_file():
        return path
    with suppress(Exception):  # a name that is no repository, or a cache that cannot be read
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json")
        if isinstance(found, str):
            return Path(found).parent
    return None
