"""Leaving the screen to our own progress."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Turns off what libraries print besides errors: progress bars of loading, notes on cached data."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("lm_eval", "datasets", "huggingface_hub", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
