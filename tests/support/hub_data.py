"""The Hub's data sets that some tests read: whether they are on this machine and, as a program, getting them.

    python tests/support/hub_data.py

Tests never ask the Hub (`conftest.py` sees to that): those marked `hub_data` are skipped at once where the data are missing.
"""

from __future__ import annotations

from pathlib import Path

import datasets

from lm_eval_clas.texts.corpora import XNLI_LANGUAGES, XQUAD_LANGUAGES

XNLI, XQUAD = "facebook/xnli", "google/xquad"
CONFIGURATIONS = {XNLI: XNLI_LANGUAGES, XQUAD: tuple(f"xquad.{language}" for language in XQUAD_LANGUAGES)}


def why_missing(repository: str) -> str | None:
    """One sentence on how to get a data set, if a configuration of it is not in the datasets cache."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    folder = cache / repository.replace("/", "___")
    missing = [one for one in CONFIGURATIONS[repository] if not (folder / one).is_dir()]
    if not missing:
        return None
    return (
        f"{repository} ({len(missing)} of {len(CONFIGURATIONS[repository])} configurations) is not in the datasets cache; "
        "where the Hub can be reached, `python tests/support/hub_data.py` gets it."
    )


def main() -> None:
    for repository, configurations in CONFIGURATIONS.items():
        for configuration in configurations:
            datasets.load_dataset(repository, configuration)


if __name__ == "__main__":
    main()
