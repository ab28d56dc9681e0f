"""The arguments of vLLM that make an engine steer."""

from __future__ import annotations

from typing import Any

from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.projections import Site
from lm_eval_clas.engine.factor_tables import EXTRA_ARGUMENT, FactorTables
from lm_eval_clas.engine.refusals import SCHEDULER, WORKER


def engine_arguments(tables: FactorTables, site: Site, projection: str | None) -> dict[str, Any]:
    """The arguments of an engine that steers.

    What decides how the model is compiled stands in `additional_config`, which is part of the hash of vLLM's compile cache.

    Args:
        tables: the layers and the number of rows that there is room for.
        site, projection: where to steer.
    """
    layout = {
        "version": __version__,
        "layers": list(tables.layers),
        "rows": len(tables.rows) + 1,
        "neurons": tables.neurons,
        "site": site,
        "projection": projection,
    }
    return {"worker_cls": WORKER, "scheduler_cls": SCHEDULER, "additional_config": {EXTRA_ARGUMENT: layout}}
