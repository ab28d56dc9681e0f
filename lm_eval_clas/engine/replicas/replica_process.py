"""What a process does that has one replica: it makes the engine, and calls its methods as it is asked to."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

Named = tuple[str, str]  # a module, and what is in it


def run_replica(
    connection: Connection, engine: Named, looking: Named | None, environment: Mapping[str, str], arguments: dict[str, Any]
) -> None:
    """Until the other end is closed: takes a method, its arguments and those by name; answers an error or None, and a result.

    The first answer is that of the start, with the configuration of the model as its result.

    Args:
        connection: to who asks.
        engine: its class.
        looking: a context in which it is made, such as one that refuses configurations.
        environment: of this process, beside what it inherits: its GPUs.
        arguments: of the class.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; who asks ends this one
    os.environ.update(environment)
    try:
        with nullcontext() if looking is None else _there(looking)():
            made = _there(engine)(**arguments)
        connection.send((None, made.llm_engine.model_config))
    except Exception as error:
        connection.send((_plain(error), None))
        return
    while True:
        try:
            method, given, named = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, getattr(made, method)(*given, **named)))
        except Exception as error:
            connection.send((_plain(error), None))


def _there(named: Named) -> Any:
    module, name = named
    return getattr(import_module(module), name)


def _plain(error: Exception) -> tuple[str, str]:
    """The kind of an error and what it says: not every error can be sent."""
    return type(error).__name__, str(error)
