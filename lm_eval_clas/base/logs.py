"""Our own loggers, and leaving the screen to our own progress."""

from __future__ import annotations

import logging

from lm_eval_clas.base.escaping import visible


def own_logger(name: str) -> logging.Logger:
    """A logger whose messages quote files, and can do nothing but be seen."""
    logger = logging.getLogger(name)
    if _make_visible not in logger.filters:
        logger.addFilter(_make_visible)
    return logger


def _make_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), ()
    return True


# Of what runs in the harness. Below its own logger, so that its format and level hold and INFO is shown.
logger = own_logger("lm_eval.models.hf_clas")


def quiet_libraries() -> None:
    """Turns off what libraries print besides errors: progress bars of loading, notes on cached data."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("lm_eval", "datasets", "huggingface_hub", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
