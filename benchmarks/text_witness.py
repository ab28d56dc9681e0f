"""How long it takes to look at the texts of a task (20 documents) before its requests are steered: CPU time, once a task.

Texts of XNLI and XQuAD validation, in all languages, under their own name and under a wrong one, among 16 known languages.

    python benchmarks/text_witness.py

Needs both data sets, from the Hub or the local cache (HF_HUB_OFFLINE=1).
"""

from __future__ import annotations

import statistics
import time

from datasets import load_dataset

from lm_eval_clas.languages.text_witness import DOCUMENTS, DocumentTexts, TextWitness
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES

SETS = {
    "facebook/xnli": {language: language for language in XNLI_LANGUAGES},
    "google/xquad": {language: f"xquad.{language}" for language in XQUAD_LANGUAGES},
}
ROWS = 200  # of each data set and language


def main() -> None:
    witness = TextWitness(MINI_LANGUAGES)
    start = time.process_time()
    witness.hear(["The weather is fine today, and the children play outside until it rains."] * DOCUMENTS, "en")
    print(f"the first task, which loads the model: {1000 * (time.process_time() - start):.0f} ms")
    for repository, configurations in SETS.items():
        taken: dict[str, list[float]] = {"its own name": [], "a wrong name": []}
        for language, configuration in configurations.items():
            rows = load_dataset(repository, configuration, split="validation").select(range(ROWS))
            texts = [DocumentTexts.of(row, "").text for row in rows]
            for first in range(0, ROWS, DOCUMENTS):
                for called, named in (("its own name", language), ("a wrong name", "sw" if language != "sw" else "de")):
                    start = time.process_time()
                    witness.hear(texts[first : first + DOCUMENTS], named)
                    taken[called].append(1000 * (time.process_time() - start))
        for called, times in taken.items():
            told = f"median {statistics.median(times):.1f} ms, at most {max(times):.1f}"
            print(f"{repository}, {called}: {len(times)} samples, {told}")


if __name__ == "__main__":
    main()
