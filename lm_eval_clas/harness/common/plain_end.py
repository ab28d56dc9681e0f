"""How a user's mistake ends `lm_eval`: with the sentence, as it ends `clas`, and without the traceback around it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.screen import Screen

_NAMES = {"lm_eval", "lm-eval"}


def end_plainly() -> None:
    """From now on, a `ClasError` that ends `lm_eval` is its sentence alone. A program of a user's own keeps its tracebacks."""
    program = Path(sys.argv[0])
    if (program.parent.name if program.name == "__main__.py" else program.stem) not in _NAMES:
        return
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ClasError):
            Screen(stderr=True).print(f"Error: {error}", markup=False, highlight=False, soft_wrap=True)
        else:
            before(kind, error, trace)

    sys.excepthook = tell
