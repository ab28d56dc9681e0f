"""What is known beforehand of data sets, tokenizers and models: `data/known_sizes.json`, made by a script of the same name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from statistics import mean

from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.checked_json import Strict, read_json
from lm_eval_clas.disk.files import PACKAGE

PATH = PACKAGE / "data" / "known_sizes.json"
MEASURED_TOKENIZER = "gemma-3"  # stands in for one that is not known


class KnownTask(Strict):
    """One task, or a group of the harness that is counted as a whole.

    Attributes:
        prompt, answer: mean characters of a prompt, and of an answer or choice.
        run: share of the prompts' tokens that is run when what they share at the start runs once.
        answer_tokens: of an answer or choice, as data sets have it.
        choices: of an item.
    """

    language: str
    items: int
    prompt: float
    run: float
    answer: float
    answer_tokens: float
    choices: int


class KnownFamily(Strict):
    """Tasks of one data set.

    Attributes:
        kind: `multiple_choice`, or `generate_until`.
        written: tokens of a generated answer, on average, at least and at most; assumed.
        source: where the numbers are from.
        fields: of the documents; None where the data were not looked at.
        clusters: what hangs together, in order, as (items of a cluster, how many such); None where that is not known.
        metric: that tables take; None where it was not looked at.
        grouped: whether its tasks are groups of the harness, counted as a whole; tables are by the tasks in them.
    """

    kind: str
    written: tuple[int, int] | None
    source: str
    fields: list[str] | None
    clusters: list[tuple[int, int]] | None
    metric: str | None = None
    grouped: bool = False
    tasks: dict[str, KnownTask]

    @property
    def generates(self) -> bool:
        """Whether answers are written, and not scored."""
        return self.kind == "generate_until"


class KnownCorpus(Strict):
    """What neurons are measured on: items, and mean characters of one by language."""

    items: int
    characters: dict[str, float]


class KnownModel(Strict):
    """A model's shape, the dtype it comes in, its tokenizer by our name, and where that is from."""

    shape: ModelShape
    tokenizer: str
    source: str


class KnownSizes(Strict):
    """The whole file.

    Attributes:
        tokenizers: characters of a token, by tokenizer and language.
        length: of a language's texts, with that of English translations of them as 1.
    """

    made_by: str
    tokenizers: dict[str, dict[str, float]]
    length: dict[str, float]
    corpora: dict[str, KnownCorpus]
    families: dict[str, KnownFamily]
    models: dict[str, KnownModel]

    def find(self, names: Iterable[str]) -> tuple[list[tuple[KnownFamily, str, KnownTask]], list[str]]:
        """The tasks that names and our groups stand for, each once, with its family and name; and what is not known."""
        found: dict[str, tuple[KnownFamily, str, KnownTask]] = {}
        unknown = []
        for wanted in names:
            if wanted in self.families:
                family = self.families[wanted]
                found |= {name: (family, name, task) for name, task in family.tasks.items()}
                continue
            holding = [family for family in self.families.values() if wanted in family.tasks]
            if holding:
                found[wanted] = (holding[0], wanted, holding[0].tasks[wanted])
            else:
                unknown.append(wanted)
        return list(found.values()), unknown

    def find_limited(
        self, limited: Iterable[tuple[int | None, Iterable[str]]]
    ) -> tuple[list[tuple[KnownFamily, str, KnownTask, int]], list[str]]:
        """What `find` gives of a part's `limited()`, each task with how many of its items are evaluated."""
        found: list[tuple[KnownFamily, str, KnownTask, int]] = []
        unknown: list[str] = []
        for limit, names in limited:
            known, missing = self.find(names)
            found += [(family, name, task, min(limit or task.items, task.items)) for family, name, task in known]
            unknown += missing
        return found, unknown

    def characters_per_token(self, tokenizer: str, language: str) -> float:
        """Of a tokenizer that is known; of a language that it was not counted in, the mean of all."""
        rates = self.tokenizers[tokenizer]
        return rates.get(language) or mean(rates.values())


@cache
def known_sizes() -> KnownSizes:
    """What the package's file says."""
    return KnownSizes.model_validate(read_json(PATH))
