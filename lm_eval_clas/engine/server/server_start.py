"""vLLM's OpenAI-compatible server with the steering worker: its arguments, and its start in this process."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.engine.refusals import refusing_engines, require_installed
from lm_eval_clas.engine.server.served_steering import ServedSteering

MIDDLEWARE = "lm_eval_clas.engine.server.language_middleware.LanguageMiddleware"
_RUST = "VLLM_USE_RUST_FRONTEND"  # in the environment: a front end without middleware


def server_arguments(model: str, served: ServedSteering, more: Sequence[str]) -> list[str]:
    """The arguments of `vllm serve`.

    Args:
        model: the model.
        served: what it steers by.
        more: further arguments of `vllm serve`.

    Raises:
        ClasError: masks, options or a language are wrong.
    """
    served.language_of(None, "detect it on this")  # refuses a wrong default now
    ours = _what_steers(served)
    return [
        *("serve", model, "--worker-cls", ours["worker_cls"], "--scheduler-cls", ours["scheduler_cls"]),
        *("--additional-config", json.dumps(ours["additional_config"]), "--middleware", MIDDLEWARE, *more),
    ]


def _what_steers(served: ServedSteering) -> dict[str, Any]:
    config = served.factors.masks.config
    return engine_arguments(served.tables, config.site, config.projection)


def refuse_arguments(read: Namespace, served: ServedSteering) -> None:
    """Refuses arguments under which requests would not be steered, or the masks do not fit.

    Args:
        read: the arguments of a server as vLLM has read them, from the command line and from whatever files that names.
        served: what it is to steer by.

    Raises:
        ClasError: it does.
    """
    for name, value in _what_steers(served).items():
        if getattr(read, name) != json.loads(json.dumps(value)):  # as it reads on a command line
            raise ClasError(f"--{name.replace('_', '-')} is what steers in vLLM, so it cannot be another; drop it.")
    other_servers = {"--grpc": getattr(read, "grpc", False), _RUST: os.environ.get(_RUST, "0") not in ("", "0")}
    for name, asked in other_servers.items():
        if asked:
            raise ClasError(f"{name} starts a server that knows no languages, so that no request would be steered; drop it.")
    require_fit(served.factors.masks, served.tables.place, read.model_tag, read.revision, read.trust_remote_code)


def run_server(model: str, served: ServedSteering, more: Sequence[str]) -> None:
    """Serves until it is stopped.

    Raises:
        ClasError: as `server_arguments` and `started`.
    """
    started(server_arguments(model, served, more), served)


def started(arguments: Sequence[str], served: ServedSteering) -> None:
    """Runs `vllm serve` in this process.

    Raises:
        ClasError: as `refuse_arguments` and `refusing_engines`; or vLLM is not installed.
    """
    require_installed()
    refuse_arguments(_read(arguments), served)
    served.to_environment()
    from vllm.entrypoints.cli.main import main

    sys.argv = ["vllm", *arguments]
    with refusing_engines():
        main()


def _read(arguments: Sequence[str]) -> Namespace:
    """The arguments as vLLM reads them, which knows names that are cut short or written in several ways."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    read: Namespace = parser.parse_args(list(arguments))
    return read
