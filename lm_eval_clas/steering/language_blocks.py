"""`LanguageBlock`: what `language()` opens. It says which language is in force where, and what was steered in it.

A block belongs to the context that entered it (`contextvars`): a thread or an asynchronous task that enters none has none.
Several blocks can be open in one context, since generators share the context of whoever runs them. The one in force is the
innermost that encloses the running code; a block that a suspended generator holds counts as entered by the generator's caller,
as `contextlib.contextmanager` needs it. Blocks may be left in any order: one that was left is in force nowhere.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from types import FrameType, TracebackType

from lm_eval_clas.base.errors import ClasError

_entered: ContextVar[tuple[LanguageBlock, ...]] = ContextVar("lm_eval_clas_blocks", default=())
_lock = threading.Lock()


class LanguageBlock:
    """One language in force, and the positions that were steered in it.

    Args:
        owner: whose language it is.
        open_blocks: the owner's blocks that are open, in all contexts; this one adds and removes itself.
        language: the language, or None for one that was not profiled.
        layers: those in which it changes anything.

    Attributes:
        positions: by layer of `layers`, how many positions it scaled inside the block: all that ran, padding among them.
        rows: those of a pass's sequences that are steered; None for all.
        sequences: how many sequences the pass has, where only some are steered.
        rounded: dtypes in which the factors of some layer are all 1, so that nothing is scaled there.
    """

    def __init__(self, owner: object, open_blocks: set[LanguageBlock], language: str | None, layers: Sequence[int]) -> None:
        self.language = language
        self.layers = tuple(layers)
        self.positions = dict.fromkeys(layers, 0)
        self.rows: slice | None = None
        self.sequences = 1
        self.rounded: dict[int, str] = {}
        self._owner = owner
        self._open_blocks = open_blocks
        self._frames: tuple[FrameType, ...] = ()  # whoever entered it, the innermost first; empty if it is not open
        self._strays = False

    def __enter__(self) -> LanguageBlock:
        if self._frames:
            raise ClasError("This block of language() is open already; call language() again for another one.")
        self._frames = _stack(sys._getframe(1))
        self._open_blocks.add(self)
        _entered.set((*(block for block in _entered.get() if block._frames), self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._frames = ()
        self._open_blocks.discard(self)
        _entered.set(tuple(block for block in _entered.get() if block._frames))
        if error is None and self._strays and self.layers and not any(self.positions.values()):
            raise ClasError(
                f"The model ran in a thread that has no language, while the block for {self._called} steered nothing; enter "
                "language() in the thread that runs the model, or start it with contextvars.copy_context().run."
            )

    def rows_of(self, length: int) -> slice | None:
        """The steered rows of an activation whose first axis is that long: sequences, or all their tokens; None for all."""
        if self.rows is None:
            return None
        each = length // max(1, self.sequences)
        return slice(self.rows.start * each, self.rows.stop * each)

    def count(self, layer: int, positions: int) -> None:
        """Adds positions that a layer scaled."""
        with _lock:  # several threads may share a context
            self.positions[layer] += positions

    def require_steered(self, what: str) -> None:
        """Returns if every layer that should was steering.

        Args:
            what: what ran in the block, to begin a sentence with: `12 requests`.

        Raises:
            ClasError: a layer scaled nothing, and not because nothing changes in the model's dtype; or no layer did.
        """
        idle = [layer for layer, positions in self.positions.items() if not positions]
        if not idle or (len(idle) < len(self.layers) and all(layer in self.rounded for layer in idle)):
            return
        if all(layer in self.rounded for layer in idle):
            dtype = next(iter(self.rounded.values()))
            raise ClasError(
                f"{what} in {self._called} were to be steered, but so weakly that nothing changes in {dtype}; give a larger "
                "alpha, or load the model with dtype=float32."
            )
        raise ClasError(
            f"{what} in {self._called} were to be steered, but no position was in layers {', '.join(map(str, idle))}, so there "
            "is no score; something keeps the model from running the steered projections."
        )

    @property
    def _called(self) -> str:
        return "a language that was not profiled" if self.language is None else f"'{self.language}'"


def block_in_force(owner: object, open_blocks: set[LanguageBlock]) -> LanguageBlock | None:
    """The owner's block for the code that calls this, or None; where there is none, open blocks elsewhere are told."""
    mine = [block for block in _entered.get() if block._owner is owner and block._frames]
    if len(mine) > 1:
        return _innermost(mine, _stack(sys._getframe(1)))
    if mine:
        return mine[0]
    for block in tuple(open_blocks):
        block._strays = True
    return None


def _innermost(blocks: Sequence[LanguageBlock], running: Sequence[FrameType]) -> LanguageBlock:
    """The block that was entered by the innermost of the running frames; of several, the last one."""
    depth = {frame: place for place, frame in enumerate(running)}

    def distance(block: LanguageBlock) -> int:
        return next((depth[frame] for frame in block._frames if frame in depth), len(running))

    return min(reversed(blocks), key=distance)  # the first of equals, and so the last that was entered


def _stack(frame: FrameType | None) -> tuple[FrameType, ...]:
    """A frame and those that called it, the innermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return tuple(frames)
