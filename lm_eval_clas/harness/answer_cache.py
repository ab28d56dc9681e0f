"""`AnswerCache`: the database of `--use_cache`, with answers kept by request, steering and what computed them.

The harness looks a request up by its arguments alone, before the model is asked, so that two languages with one prompt would
share an answer, and so would two model classes. So the database that it hands over finds nothing for the harness any more, and
keeps nothing of it: every request comes to the model, which looks it up by its steering and its own way to compute, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import hash_args
from sqlitedict import SqliteDict

from lm_eval_clas.base.errors import ClasError

_OLD_MARK = "lm-eval-clas steering"  # of versions that kept answers of all languages under the harness's keys


def require_apart(database: SqliteDict) -> None:
    """Refuses a database that holds steered answers under the harness's keys, which do not tell by what they were steered.

    Raises:
        ClasError: an older version of this package wrote it.
    """
    if database.get(_OLD_MARK, "off") != "off":
        raise ClasError(
            "--use_cache: this database was filled by an older lm-eval-clas, which did not keep the answers of different "
            "languages apart; delete it, or give another."
        )


class _Withheld(SqliteDict):
    """A database in which the harness, which asks by item access, finds nothing and leaves nothing."""

    def __contains__(self, key: object) -> bool:
        return False

    def __setitem__(self, key: str, value: Any) -> None:
        pass


class AnswerCache:
    """Answers by kind of request, arguments, steering and way to compute, in place of the harness's hook into its database.

    Args:
        name: of the model class.
        way: how it computes just now, such as its dtype and scoring path.
        database: the harness's, which it goes on holding; None keeps and finds nothing.

    Raises:
        ClasError: this version of the harness keeps answers in another kind of database.
    """

    def __init__(self, name: str, way: Callable[[], Sequence[str]], database: Any = None) -> None:
        if type(database) not in (type(None), SqliteDict, _Withheld):
            raise ClasError(
                f"--use_cache: this version of lm-eval keeps answers in a way that {name} does not know, so that languages "
                "with the same prompt would share them; drop --use_cache."
            )
        if database is not None:
            database.__class__ = _Withheld
        self._name, self._way = name, way
        self._database = database
        self._steering: tuple[str, ...] = ()

    @contextmanager
    def steered(self, digest: str, language: str, family: str) -> Iterator[None]:
        """Inside the block, answers are those under one steering.

        Args:
            digest: of the steered function; empty where nothing is steered.
            language, family: what it is for; two of them share no answer, even where the function is the same.
        """
        before, self._steering = self._steering, (digest, language, family) if digest else ()
        try:
            yield
        finally:
            self._steering = before

    @property
    def keeps(self) -> bool:
        """Whether there is a database."""
        return self._database is not None

    def find(self, kind: str, requests: Sequence[Instance]) -> dict[int, Any]:
        """The answers that are there, by position in `requests`. Sampled ones are new each time."""
        if self._database is None:
            return {}
        keys = {position: self._key(kind, request.args) for position, request in enumerate(requests)}
        return {
            position: SqliteDict.__getitem__(self._database, key)
            for position, key in keys.items()
            if not drawn_by_chance(kind, requests[position].args) and SqliteDict.__contains__(self._database, key)
        }

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keeps one answer. The harness's models call it by this name for each answered request."""
        if self._database is not None and not drawn_by_chance(kind, arguments):
            SqliteDict.__setitem__(self._database, self._key(kind, arguments), answer)

    def _key(self, kind: str, arguments: Sequence[Any]) -> str:
        return str(hash_args(kind, [*arguments, {"by": [self._name, *self._way()], "steered": self._steering}]))


def drawn_by_chance(kind: str, arguments: Sequence[Any]) -> bool:
    """Whether an answer is sampled: for the harness, a temperature says so where `do_sample` says nothing."""
    if kind != "generate_until":
        return False
    chosen = arguments[1].get("do_sample")
    return bool(arguments[1].get("temperature") if chosen is None else chosen)
