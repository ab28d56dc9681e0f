"""The arguments of vLLM that make an engine steer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.projections import Site
from lm_eval_clas.engine.refusals import SCHEDULER, WORKER
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT, RowTables


def engine_arguments(tables: RowTables, site: Site, projection: str | None) -> dict[str, Any]:
    """The arguments of an engine that steers.

    What decides how the model is compiled stands in `additional_config`, which is part of the hash of vLLM's compile cache.

    Args:
        tables: what there is to be room for.
        site, projection: where to steer.
    """
    # Without tuples, so that it is the same after it was written as JSON.
    room = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(tables.room).items()}
    layout = {"version": __version__, "room": room, "site": site, "projection": projection}
    return {"worker_cls": WORKER, "scheduler_cls": SCHEDULER, "additional_config": {EXTRA_ARGUMENT: layout}}
