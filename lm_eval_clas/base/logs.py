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


def quiet_libraries() -> None:
    """Turns off what libraries print besides errors: progress bars of loading, notes on cached data."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("lm_eval", "datasets", "huggingface_hub", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
