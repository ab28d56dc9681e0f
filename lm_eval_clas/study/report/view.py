"""What a report is made of, before it is HTML: sections of paragraphs, tables, pictures, cards and code. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup

Tone = Literal["", "up", "down"]


@dataclass(frozen=True)
class TableCell:
    """One cell of a table: its text, a second line in small print, and whether it is a gain or a loss worth a colour."""

    text: str
    detail: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows and stays in sight when the others scroll.

    Attributes:
        caption: what it shows, and what its signs mean.
        head: the columns' names, that of the first among them.
        rows: each as long as `head`.
        prose: columns (by position) that hold words and not numbers.
        emphasised: rows (by position) that stand out, such as the average.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: list[str]
    rows: list[list[TableCell]]
    prose: frozenset[int] = frozenset()
    emphasised: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A picture as markup (`svg` with its text alternative inside, or `img`), and the words below it."""

    markup: Markup
    caption: str = ""


@dataclass(frozen=True)
class Legend:
    """What a colour stands for. `dashes` is a pattern of `stroke-dasharray`."""

    label: str
    color: str
    dashes: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many as fit; small ones are panels of one figure."""

    kind: ClassVar[str] = "pictures"
    pictures: list[Picture]
    small: bool = False
    caption: str = ""
    legend: list[Legend] = field(default_factory=list)


@dataclass(frozen=True)
class Text:
    """A paragraph; a lead is set larger."""

    kind: ClassVar[str] = "text"
    text: str
    lead: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    points: list[str]


@dataclass(frozen=True)
class Heading:
    """A heading within a section; a minor one is within what another heads."""

    kind: ClassVar[str] = "heading"
    text: str
    minor: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are, such as `model` and its name."""

    kind: ClassVar[str] = "facts"
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Lines as a program reads or prints them."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Card:
    """What there is to say of one language."""

    title: str
    code: str
    facts: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Deck:
    """Cards side by side, as many as fit."""

    kind: ClassVar[str] = "cards"
    cards: list[Card]


Block = Table | Gallery | Text | Bullets | Heading | Facts | Code | Deck


@dataclass(frozen=True)
class Section:
    """A section with its anchor, title and blocks."""

    id: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Report:
    """The whole page.

    Attributes:
        title, subtitle: of the page.
        summary: in plain words.
        sections: those for which there is anything to show.
        left_out: one line for each that there is not.
        version: of this package.
    """

    title: str
    subtitle: str
    summary: list[Block]
    sections: list[Section]
    left_out: list[str]
    version: str
