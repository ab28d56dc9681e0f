"""`RowTables`: the rows that requests can name, factors and what is added, as they go from who asks to those that compute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.methods.intervention import Intervention
from lm_eval_clas.steering.methods.steering_method import Acts

EXTRA_ARGUMENT = "clas"  # in a request's `extra_args`: the name of its row

# What a row has for each number of an activation h: h' = h * factor + shift.
Operand = Literal["factors", "shifts"]
# Those that change no bit of h. Adding 0.0 makes 0.0 of -0.0; adding -0.0 leaves both as they are.
NEUTRAL: Mapping[Operand, float] = {"factors": 1.0, "shifts": -0.0}
_TOLD = {
    ("neurons", "factors"): "multiplies neurons",
    ("neurons", "shifts"): "is added to neurons",
    ("outputs", "shifts"): "is added to what leaves the layers",
}


def row_name(digest: str, label: str) -> str:
    """The name of a row: what it does, and whom it is for.

    Args:
        digest: of what it does, as `Intervention.digest` has it. Rows with one digest may share what is cached of a prompt.
        label: tells rows apart that do the same, so that each is counted by itself.
    """
    return f"{digest}/{label}"


def steered_row(steerer: LanguageFactors, language: str | None, label: str) -> str | None:
    """The name of the row of a language; None where nothing is changed, and there is no row."""
    return row_name(steerer.factors_hash(language), label) if steerer.changes(language) else None


def digest_of(name: str) -> str:
    """The digest in the name of a row."""
    return name.partition("/")[0]


def steered_tokens(counted: Iterable[tuple[Mapping[str, int], Mapping[int, Mapping[str, int]]]]) -> dict[str, dict[int, int]]:
    """By row and layer, the tokens that were steered, where each was once.

    Args:
        counted: what each process answered that was asked for its counts: tokens by row that steps had, and by layer and row,
            those that the layer changed.

    Raises:
        ClasError: a layer did not change each token of a step once.
    """
    steered: dict[str, dict[int, int]] = {}
    for scheduled, changed in counted:
        for layer, by_name in changed.items():
            for name in {*scheduled, *by_name}:
                asked, done = scheduled.get(name, 0), by_name.get(name, 0)
                if asked != done:
                    raise ClasError(
                        f"Layer {layer} steered {done} positions of the {asked} that vLLM ran for '{name}', so there is no "
                        "score; something keeps the model from running what steers once for each."
                    )
                steered.setdefault(name, {})[int(layer)] = done
    return steered


def summed_tokens(of_each: Iterable[Mapping[str, Mapping[int, int]]]) -> dict[str, dict[int, int]]:
    """By row and layer, the tokens that all replicas steered.

    Args:
        of_each: what `steered_tokens` says of each replica.
    """
    found: dict[str, dict[int, int]] = {}
    for steered in of_each:
        for name, by_layer in steered.items():
            own = found.setdefault(name, {})
            for layer, tokens in by_layer.items():
                own[layer] = own.get(layer, 0) + tokens
    return found


@dataclass(frozen=True)
class RowRoom:
    """What an engine was started with, and other tables must fit into.

    Attributes:
        place: where rows act.
        operands: what there are tables of.
        layers: those that have tables, ascending.
        widths: how many numbers a row of each of these has in the whole model.
        rows: how many, row 0 among them.
    """

    place: Acts
    operands: tuple[Operand, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    rows: int

    def width(self, layer: int) -> int:
        """How many numbers a row has in a layer that has a table."""
        return self.widths[self.layers.index(layer)]


@dataclass(frozen=True)
class RowTables:
    """What is done by layer and row. Row 0 changes nothing, for requests that name none.

    Attributes:
        rows: the names of the rows from 1 on.
        place: where they act: on neurons at a site, or on what leaves the layers.
        tables: factors, shifts or both, whatever any row needs; by layer, float32 [1 + rows, width of the layer].
    """

    rows: tuple[str, ...]
    place: Acts
    tables: dict[Operand, dict[int, torch.Tensor]]

    @classmethod
    def of(
        cls,
        done: Iterable[tuple[str, Intervention]],
        layers: Iterable[int],
        place: Acts = "neurons",
        widths: Sequence[int] | None = None,
    ) -> RowTables:
        """The tables of what is done, labelled.

        Args:
            done: labels, each with what its row does; at least one, and no maps of the activation.
            layers: those that get a table; all others are left alone.
            place: where it is done.
            widths: how many numbers each layer of the model has there, where not all have as many as the widest.
        """
        by_name = {row_name(one.digest, label): one for label, one in done}
        kept, ends = sorted(set(layers)), dict(enumerate(widths or ()))
        if not by_name or any(one.maps for one in by_name.values()):
            raise ValueError("there is nothing to steer with, or a map that no row can hold")
        numbers: dict[Operand, list[NDArray[np.float32]]] = {
            "factors": [one.factors for one in by_name.values()],
            "shifts": [np.zeros_like(one.factors) if one.shifts is None else one.shifts for one in by_name.values()],
        }
        tables: dict[Operand, dict[int, torch.Tensor]] = {}
        for operand, rows in numbers.items():
            first = np.full_like(rows[0], NEUTRAL[operand])
            if any((row != first).any() for row in rows):
                tables[operand] = {
                    layer: torch.from_numpy(np.stack([row[layer][: ends.get(layer)] for row in (first, *rows)]))
                    for layer in kept
                }
        if not set(tables) <= {operand for where, operand in _TOLD if where == place}:
            raise ValueError("what leaves a layer is not multiplied: it is the sum of two tensors there")
        return cls(tuple(by_name), place, tables)

    @classmethod
    def of_languages(cls, asked: Iterable[tuple[str, LanguageFactors, str | None]]) -> RowTables | None:
        """A row for each language in which anything is changed; None without one.

        Args:
            asked: labels, each with what says what is done, and the language; all of one method.
        """
        changed = [(label, steerer, language) for label, steerer, language in asked if steerer.changes(language)]
        if not changed:
            return None
        layers = {layer for _, steerer, language in changed for layer in steerer.steered_layers(language)}
        (place,) = {steerer.acts_on for _, steerer, _ in changed}
        widths = changed[0][1].masks.config.model.fingerprint.widths if place == "neurons" else None
        return cls.of([(label, one.intervention(language)) for label, one, language in changed], layers, place, widths)

    @property
    def room(self) -> RowRoom:
        """What an engine needs for these."""
        by_layer = next(iter(self.tables.values()))
        rows = len(next(iter(by_layer.values())))
        widths = tuple(table.shape[1] for table in by_layer.values())
        return RowRoom(self.place, tuple(self.tables), tuple(by_layer), widths, rows)

    def dump(self) -> bytes:
        """As bytes, safetensors with the names and the place as metadata."""
        named = {f"{operand}.{layer}": one for operand, tables in self.tables.items() for layer, one in tables.items()}
        return bytes(save(named, {"rows": json.dumps(self.rows), "place": self.place}))

    @classmethod
    def read(cls, dumped: bytes) -> RowTables:
        """What `dump` made."""
        length = int.from_bytes(dumped[:8], "little")
        told = json.loads(dumped[8 : 8 + length])["__metadata__"]
        tables: dict[Operand, dict[int, torch.Tensor]] = {}
        found = load(dumped)  # in any order
        for operand in NEUTRAL:
            layers = sorted(int(name.partition(".")[2]) for name in found if name.startswith(operand))
            if layers:
                tables[operand] = {layer: found[f"{operand}.{layer}"] for layer in layers}
        return cls(tuple(json.loads(told["rows"])), told["place"], tables)

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

    def require_room(self, room: RowRoom) -> None:
        """Refuses tables that do not fit where others were.

        Raises:
            ClasError: they do something else than the engine has tables of, on other layers, or in more rows.
        """
        own = self.room
        here, there = ({(one.place, operand) for operand in one.operands} for one in (own, room))
        if not here <= there:
            raise ClasError(
                f"The engine that is running has tables of what {_all(there)}, and this method needs one of what "
                f"{_all(here - there)}; start another engine with it."
            )
        if beyond := sorted(set(own.layers) - set(room.layers)):
            raise ClasError(
                f"Layers {', '.join(map(str, beyond))} have no tables in the engine that is running; start it with the layers "
                "that you want to steer."
            )
        if own.rows > room.rows:
            raise ClasError(
                f"{own.rows - 1} rows do not fit into an engine that was started with room for {room.rows - 1}; start it again "
                "with what you want to steer."
            )


def _all(what: Iterable[tuple[str, str]]) -> str:
    return " and of what ".join(_TOLD[one] for one in sorted(what))
