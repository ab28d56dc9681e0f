"""The same texts in every language: parallel corpora from the Hub, from files, or from the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
import yaml

from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import PACKAGE, shipped
from lm_eval_clas.language_names import parse_language

XNLI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
MINI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh")

Half = Literal["first", "second"]

Rows = dict[str, str]  # text by id, of one language, in the corpus's order


@dataclass(frozen=True)
class ParallelTexts:
    """The same items in every language.

    Attributes:
        name: of the corpus: `xquad`, `xnli`, `mini`, or the last part of a path; and which half it is, if it is one.
        ids: of the items, in order.
        texts: by language, one text per id, in the order of `ids`.
    """

    name: str
    ids: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 codes."""
        return tuple(self.texts)

    def sha256(self) -> str:
        """A hash over ids and texts, in hex."""
        content = json.dumps([self.name, self.ids, self.texts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class ParallelInputBuilder:
    """Reads a parallel corpus and takes the same sample of it in every language.

    Attributes:
        corpus: `xquad` or `xnli` (from the Hub or its cache; only rows set aside for profiling) or `mini` (ships with the
            package), each as the zero-shot prompts of our tasks; or a `.jsonl` file whose lines hold `id`, `language` and
            `text`, or a folder of files `LANGUAGE.txt` (parallel by line) or `LANGUAGE.jsonl` (`id` and `text`, parallel
            by id).
        languages: BCP-47 codes; None takes all that the corpus has.
        samples: how many items, the first ones in the order of the first language; None takes all.
        half: of the sample: items 1, 3, 5, ... are the `first`, items 2, 4, 6, ... the `second`; None takes both.
    """

    corpus: str
    languages: Sequence[str] | None = None
    samples: int | None = None
    half: Half | None = None

    def build(self) -> ParallelTexts:
        """Reads, checks and samples.

        Raises:
            ClasError: no such corpus or language, too few items, or the languages are not parallel; a missing or extra
                item is named.
        """
        if self.corpus in _NAMED:
            known, read = _NAMED[self.corpus]
            name, rows = self.corpus, {language: read(language) for language in self._choose(known)}
        else:
            path = Path(self.corpus).expanduser()
            available = _read_path(path)
            name, rows = path.stem, {language: available[language] for language in self._choose(tuple(available))}
        _check_parallel(rows, name)
        ids = list(next(iter(rows.values())))
        if self.samples is not None:
            if not 0 < self.samples <= len(ids):
                raise ClasError(f"--samples {self.samples} is out of range: corpus '{name}' has {len(ids)} items.")
            ids = ids[: self.samples]
        if self.half is not None:
            if self.half not in get_args(Half) or len(ids) < 2:
                raise ClasError(f"--half is first or second, of two items at least; not '{self.half}' of {len(ids)}.")
            name, ids = f"{name}, {self.half} half", ids[self.half == "second" :: 2]
        return ParallelTexts(name, tuple(ids), {language: tuple(rows[language][i] for i in ids) for language in rows})

    def _choose(self, known: tuple[str, ...]) -> tuple[str, ...]:
        if self.languages is None:
            return known
        if isinstance(self.languages, str):
            raise ClasError(f"languages must be a list of codes, not the string '{self.languages}'.")
        chosen = tuple(dict.fromkeys(parse_language(language) or language for language in self.languages))
        if unknown := [language for language in chosen if language not in known]:
            raise ClasError(
                f"Corpus '{self.corpus}' has no {', '.join(unknown)}; it has {', '.join(known)}. Choose among these with "
                "--languages."
            )
        return chosen


def load_hub(repository: str, config: str, split: str) -> Any:
    """One split of a Hub data set, from the Hub or the local cache.

    Raises:
        ClasError: neither has it.
    """
    from datasets import load_dataset

    try:
        return load_dataset(repository, config, split=split)
    except Exception as error:  # datasets and the Hub client raise many kinds; each means that the data is not to be had
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ClasError(
            f"Cannot load {repository} ({config}): {reason}. Check the connection to the Hub, or use --corpus mini, which "
            "ships with the package."
        ) from error


def _prompts(task: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows with their zero-shot prompts in one of our tasks: neurons are profiled on what the model will be asked.

    Byte order marks, which some of XQuAD's passages begin with in some languages only, are taken out.
    """
    folder, _, _ = task.removeprefix("clas_").partition("_")
    config = yaml.safe_load((shipped("tasks") / folder / f"{task}.yaml").read_text(encoding="utf-8"))
    template = jinja2.Template(config["doc_to_text"])
    for row in rows:
        yield row, template.render(row).replace("\ufeff", "")


def _xquad(language: str) -> Rows:
    from lm_eval_clas.splits import xquad_rows

    rows = xquad_rows(load_hub("google/xquad", f"xquad.{language}", "validation"), "profile")
    return {row["id"]: prompt for row, prompt in _prompts(f"clas_xquad_{language}", rows)}


def _xnli(language: str) -> Rows:
    from lm_eval_clas.splits import xnli_rows

    rows = xnli_rows(load_hub("facebook/xnli", language, "validation"), "tune")
    return {f"tune-{i}": prompt for i, (_, prompt) in enumerate(_prompts(f"clas_xnli_tune_{language}", rows))}


def _mini(language: str) -> Rows:
    rows = _json_lines(PACKAGE / "data" / "mini" / f"{language}.jsonl")
    named = ({**row, "context": row["passage"]} for row in rows)
    return {row["id"]: prompt for row, prompt in _prompts(f"clas_mini_qa_{language}", named)}


_NAMED: dict[str, tuple[tuple[str, ...], Callable[[str], Rows]]] = {
    "xquad": (XQUAD_LANGUAGES, _xquad),
    "xnli": (XNLI_LANGUAGES, _xnli),
    "mini": (MINI_LANGUAGES, _mini),
}


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ClasError(f"'{path}', line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ClasError(f"'{path}', line {number}: must be a JSON object.")
        rows.append(row)
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without the empty one at its end.

    Raises:
        ClasError: it cannot be read.
    """
    try:
        # Not splitlines(): that also breaks at characters which occur inside texts, such as U+2028.
        return path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ClasError(f"'{path}' cannot be read as UTF-8 text ({error}).") from error


def _read_path(path: Path) -> dict[str, Rows]:
    """Text by language and id, from a file or a folder."""
    rows: dict[str, Rows] = {}
    if path.is_file() and path.suffix == ".jsonl":
        for number, row in enumerate(_json_lines(path), start=1):
            _add(rows, row, row.get("language"), f"'{path}', line {number}")
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".txt", ".jsonl"))
        for file in files:
            if file.suffix == ".txt":
                numbered: list[dict[str, Any]] = [
                    {"id": f"line {number}", "text": text} for number, text in enumerate(read_lines(file), start=1)
                ]
            else:
                numbered = _json_lines(file)
            for number, row in enumerate(numbered, start=1):
                _add(rows, row, file.stem, f"'{file}', line {number}")
    else:
        raise ClasError(
            f"There is no corpus '{path}': give {', '.join(_NAMED)}, a .jsonl file with id, language and text, or a folder of "
            "LANGUAGE.txt or LANGUAGE.jsonl files."
        )
    if not rows:
        raise ClasError(f"'{path}' holds no texts: it needs LANGUAGE.txt or LANGUAGE.jsonl files, or lines of JSON.")
    return rows


def _add(rows: dict[str, Rows], row: dict[str, Any], language: Any, where: str) -> None:
    code = parse_language(str(language))
    if code is None:
        raise ClasError(f"{where}: '{language}' is not a language code (use BCP-47, e.g. hi).")
    if "id" not in row or not isinstance(row.get("text"), str):
        raise ClasError(f"{where}: needs an 'id' and a 'text'.")
    if not row["text"].strip():
        raise ClasError(f"{where}: the text is empty.")
    if str(row["id"]) in rows.setdefault(code, {}):
        raise ClasError(f"{where}: {row['id']} is there twice for language '{code}'.")
    rows[code][str(row["id"])] = row["text"]


def _check_parallel(rows: dict[str, Rows], name: str) -> None:
    first = next(iter(rows))
    for language in rows:
        for here, there in ((first, language), (language, first)):
            if missing := [one for one in rows[here] if one not in rows[there]]:
                raise ClasError(
                    f"Corpus '{name}' is not parallel: {missing[0]} is in '{here}' and missing in '{there}' "
                    f"({len(missing)} such); give every language the same items."
                )
