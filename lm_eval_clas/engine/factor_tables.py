"""`FactorTables`: the rows of factors that requests can name, as they go from the process that asks to those that compute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load, save

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.methods.intervention import factors_hash

_ROWS = "rows"  # the key of the names in the tensors' metadata
EXTRA_ARGUMENT = "clas"  # in a request's `extra_args`: the name of its row


def row_name(digest: str, label: str) -> str:
    """The name of a row: what its factors are, and whom they are for.

    Args:
        digest: of the factors, as `LanguageFactors.digest` has it. Rows with one digest may share what is cached of a prompt.
        label: tells rows apart that have the same factors, so that each is counted by itself.
    """
    return f"{digest}/{label}"


def steered_row(steerer: LanguageFactors, language: str | None, label: str) -> str | None:
    """The name of the row with a language's factors; None where they change nothing, and there is no row."""
    return row_name(steerer.factors_hash(language), label) if steerer.changes(language) else None


def digest_of(name: str) -> str:
    """The digest in the name of a row."""
    return name.partition("/")[0]


@dataclass(frozen=True)
class FactorTables:
    """Factors by layer and row. Row 0 is all ones, for requests that name none.

    Attributes:
        rows: the names of the rows from 1 on.
        tables: by layer, float32 [1 + rows, neurons].
    """

    rows: tuple[str, ...]
    tables: dict[int, torch.Tensor]

    @classmethod
    def of(cls, factors: Iterable[tuple[str, torch.Tensor]], layers: Iterable[int]) -> FactorTables:
        """The tables of labelled factors.

        Args:
            factors: labels, each with float32 [layers of the model, neurons].
            layers: those that get a table; all others' factors are ones.
        """
        by_name = {row_name(factors_hash(one.numpy()), label): one for label, one in factors}
        kept = sorted(set(layers))
        if not by_name:
            raise ValueError("there is nothing to steer with")
        ones = torch.ones_like(next(iter(by_name.values())))
        return cls(tuple(by_name), {layer: torch.stack([one[layer] for one in (ones, *by_name.values())]) for layer in kept})

    @classmethod
    def of_languages(cls, asked: Iterable[tuple[str, LanguageFactors, str | None]]) -> FactorTables | None:
        """A row for each language in which any neuron is steered; None without one.

        Args:
            asked: labels, each with what has the factors, and the language.
        """
        changed = [(label, steerer, language) for label, steerer, language in asked if steerer.changes(language)]
        layers = {layer for _, steerer, language in changed for layer in steerer.steered_layers(language)}
        factors = [(label, steerer.factors(language)) for label, steerer, language in changed]
        return cls.of(factors, layers) if factors else None

    @property
    def layers(self) -> tuple[int, ...]:
        """Those that have a table."""
        return tuple(self.tables)

    @property
    def neurons(self) -> int:
        """The width of a row."""
        return int(next(iter(self.tables.values())).shape[1])

    def dump(self) -> bytes:
        """As bytes, safetensors with the names as metadata."""
        return bytes(save({str(layer): table for layer, table in self.tables.items()}, {_ROWS: json.dumps(self.rows)}))

    @classmethod
    def read(cls, dumped: bytes) -> FactorTables:
        """What `dump` made."""
        length = int.from_bytes(dumped[:8], "little")
        rows = json.loads(json.loads(dumped[8 : 8 + length])["__metadata__"][_ROWS])
        tables = {int(layer): table for layer, table in load(dumped).items()}
        return cls(tuple(rows), {layer: tables[layer] for layer in sorted(tables)})

    def changes(self, of_processes: Iterable[Mapping[str, Iterable[int]]]) -> dict[str, list[int]]:
        """The layers in which each row changes anything in the model's dtype, by name.

        Args:
            of_processes: what each process answered that took the tables: its layers, or its slice of all of them.
        """
        found: dict[str, set[int]] = {name: set() for name in self.rows}
        for one in of_processes:
            for name, layers in one.items():
                found[name].update(layers)
        return {name: sorted(layers) for name, layers in found.items()}

    def require_room(self, layers: Iterable[int], rows: int) -> None:
        """Refuses tables that do not fit where others were.

        Args:
            layers: that have room.
            rows: of the tables there, row 0 among them.

        Raises:
            ClasError: there are more rows, or other layers.
        """
        if beyond := sorted(set(self.layers) - set(layers)):
            raise ClasError(
                f"Layers {', '.join(map(str, beyond))} have no room for factors in the engine that is running; start it with "
                "the layers that you want to steer."
            )
        if len(self.rows) + 1 > rows:
            raise ClasError(
                f"{len(self.rows)} rows of factors do not fit into an engine that was started with room for {rows - 1}; start "
                "it again with what you want to steer."
            )
