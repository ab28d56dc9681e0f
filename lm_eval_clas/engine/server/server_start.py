"""vLLM's OpenAI-compatible server with the steering worker: its arguments, and its start in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.engine.refusals import require_installed
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT
from lm_eval_clas.engine.server.served_steering import ServedSteering

MIDDLEWARE = "lm_eval_clas.engine.server.language_middleware.LanguageMiddleware"
_OURS = ("--worker-cls", "--scheduler-cls", "--additional-config")


def server_arguments(model: str, served: ServedSteering, more: Sequence[str]) -> list[str]:
    """The arguments of `vllm serve`.

    Args:
        model: the model.
        served: what it steers by.
        more: further arguments of `vllm serve`.

    Raises:
        ClasError: masks, options or a language are wrong, or one of `more` is what steers.
    """
    for given in more:
        if given.partition("=")[0].replace("_", "-") in _OURS:
            raise ClasError(f"{given.partition('=')[0]} is what steers in vLLM, so it cannot be another; drop it.")
    require_fit(served.factors.masks, model, _value(more, "--revision"), "--trust-remote-code" in more)
    served.language_of(None, "detect it on this")  # refuses a wrong default now
    config = served.factors.masks.config
    ours = engine_arguments(served.tables, config.site, config.projection)
    return [
        *("serve", model, "--worker-cls", ours["worker_cls"], "--scheduler-cls", ours["scheduler_cls"]),
        *("--additional-config", json.dumps({EXTRA_ARGUMENT: ours["additional_config"][EXTRA_ARGUMENT]})),
        *("--middleware", MIDDLEWARE, *more),
    ]


def _value(arguments: Sequence[str], option: str) -> str | None:
    for given, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if given == option:
            return following
        if given.startswith(f"{option}="):
            return given.partition("=")[2]
    return None


def run_server(model: str, served: ServedSteering, more: Sequence[str]) -> None:
    """Serves until it is stopped.

    Raises:
        ClasError: as `server_arguments`; or vLLM is not installed.
    """
    started(server_arguments(model, served, more), served)


def started(arguments: Sequence[str], served: ServedSteering) -> None:
    """Runs `vllm serve` in this process.

    Raises:
        ClasError: vLLM is not installed.
    """
    require_installed()
    served.to_environment()
    from vllm.entrypoints.cli.main import main

    sys.argv = ["vllm", *arguments]
    main()
