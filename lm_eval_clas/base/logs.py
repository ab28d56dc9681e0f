"""Our own loggers, and leaving the screen to our own progress."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


_LIBRARIES = ("lm_eval", "datasets", "huggingface_hub", "transformers", "accelerate", "peft", "torch", "tokenizers")


def no_bars_of_libraries() -> None:
    """Turns off bars of tqdm; to be called before anything imports it, as it looks only then."""
    os.environ.setdefault("TQDM_DISABLE", "1")


@contextmanager
def no_bars() -> Iterator[None]:
    """Draws no bar of tqdm in the block, whoever asks for one: the variable decides only where they say nothing."""
    from tqdm.std import tqdm

    begin = tqdm.__init__

    def hidden(bar: Any, *given: Any, **options: Any) -> None:
        begin(bar, *given, **{**options, "disable": True})

    tqdm.__init__ = hidden
    try:
        yield
    finally:
        tqdm.__init__ = begin


def quiet_libraries() -> None:
    """Turns off what libraries print besides errors: progress bars, notes on cached data, warnings about their own ways."""
    no_bars_of_libraries()
    import datasets
    import huggingface_hub
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a variable of the environment says so already
        huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined,unused-ignore]
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")
