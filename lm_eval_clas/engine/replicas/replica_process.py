"""What a process does that has one replica: it makes the engine, and calls its methods as it is asked to."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any


def run_replica(
    connection: Connection, engine: tuple[str, str], devices: Sequence[str] | None, arguments: dict[str, Any]
) -> None:
    """Until the other end is closed: takes a method, its arguments and those by name; answers an error or None, and a result.

    The first answer is that of the start, with nothing as its result.

    Args:
        connection: to who asks.
        engine: module and name of its class.
        devices: the GPUs of this replica, as CUDA_VISIBLE_DEVICES names them; None where there are none to share.
        arguments: of the class.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; who asks ends this one
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        module, name = engine
        made = getattr(import_module(module), name)(**arguments)
    except Exception as error:
        connection.send((_plain(error), None))
        return
    connection.send((None, None))
    while True:
        try:
            method, given, named = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, getattr(made, method)(*given, **named)))
        except Exception as error:
            connection.send((_plain(error), None))


def _plain(error: Exception) -> tuple[str, str]:
    """The kind of an error and what it says: not every error can be sent."""
    return type(error).__name__, str(error)
