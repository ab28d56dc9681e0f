"""What runs the model while strengths are measured: `hf`, which resumes batches at the bridge, or `vllm`, with rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.refusals import refuse_launcher, refuse_method
from lm_eval_clas.harness.sweep import Sweep
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS, Setting

EngineName = Literal["hf", "vllm"]


@dataclass(frozen=True)
class EngineInUse:
    """How `run_tuning` measures.

    Attributes:
        load: loads the model.
        sweep: what asks it under all settings.
    """

    load: Callable[[], Any]
    sweep: type[Sweep]


def engine_in_use(
    engine: str,
    model: str,
    model_args: str,
    masks: MaskSet,
    settings: Sequence[Setting],
    device: str | None,
    batch_size: str | int,
    method: str = CLAS,
) -> EngineInUse:
    """The way of an engine.

    Args:
        engine: an `EngineName`.
        model, model_args: as the harness's class of that engine takes them.
        masks, settings: that are measured.
        method: of steering.
        device, batch_size: of `hf`; vLLM has the device that it was built for, and batches of its own.

    Raises:
        ClasError: an argument is a slip, a device or a launcher was given for vLLM, the method is a map, or vLLM is not
            installed.
    """
    if engine == "hf":
        from lm_eval_clas.harness.model_loading import load_model, require_arguments

        given = f"batch_size={batch_size},{model_args}".rstrip(",")
        require_arguments(model, given, fast=True)
        return EngineInUse(lambda: load_model(model, given, device, fast=True), Sweep)
    if device is not None:
        raise ClasError(f"vLLM runs on the device that it was built for; drop --device {device}.")
    refuse_launcher()
    refuse_method(method)
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_clas.engine.row_sweep import RowSweep, load_rows
    from lm_eval_clas.engine.rowed_vllm import RowedVLLM, engine_takers
    from lm_eval_clas.harness.common.argument_names import named_in, refuse_slips

    arguments = simple_parse_args_string(model_args)
    refuse_slips("vllm", arguments, named_in(RowedVLLM, *engine_takers()))
    return EngineInUse(lambda: load_rows(model, arguments, masks, settings, method), RowSweep)
