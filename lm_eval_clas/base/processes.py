"""`Processes`: the copies of a program that a launcher started together, and what they tell each other.

`accelerate launch` and `torchrun` start a program several times and tell each copy its number in the environment. Here every
copy holds a whole model and works on its share; nothing is sent but results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lm_eval_clas.base.errors import ClasError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Value = TypeVar("Value")
Item = TypeVar("Item")

# What launchers set: torchrun and accelerate, then three kinds of MPI.
_NAMES = (
    ("RANK", "WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_FOREVER = timedelta(weeks=52)  # a share may take days longer than another; the launcher ends all when one fails


def launched_as() -> tuple[int, int]:
    """This process's number and how many a launcher started, from the environment alone; (0, 1) without a launcher."""
    for rank, size in _NAMES:
        # Job schedulers set WORLD_SIZE for other purposes too; whoever starts processes also numbers them on their machine.
        if rank == "RANK" and "LOCAL_RANK" not in os.environ:
            continue
        numbers = (os.environ.get(rank, ""), os.environ.get(size, ""))
        if all(number.isdigit() for number in numbers) and int(numbers[1]) > 1:
            return int(numbers[0]), int(numbers[1])
    return 0, 1


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are. The methods but `share` are to be called by all processes alike.

    Attributes:
        rank: from 0 on; number 0 is the main one, which writes files.
        size: how many processes there are, on all machines.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """The processes that a launcher started, connected; a single one without a launcher.

        Raises:
            ClasError: they cannot be connected.
        """
        if (size := launched_as()[1]) == 1:
            return cls()
        import torch
        from accelerate import PartialState  # type: ignore[import-untyped]
        from accelerate.utils import parse_flag_from_env  # type: ignore[import-untyped]

        if not torch.accelerator.is_available():
            # Otherwise accelerate connects no processes on the CPU, and each would believe to be the only one.
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_FOREVER)
        if state.num_processes != size:
            raise ClasError(
                f"The launcher started {size} processes, but accelerate connects {state.num_processes} of them; start without "
                "a launcher, or with ACCELERATE_USE_CPU=true to run on the CPU."
            )
        return cls(state.process_index, state.num_processes)

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part: every `size`-th item, so that parts of a sorted list are alike."""
        return items[self.rank :: self.size]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, in the order of processes, for all of them."""
        if self.size == 1:
            return [value]
        import torch

        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives in the main process, for all of them; it is not called in the others."""
        if self.size == 1:
            return make()
        import torch

        values = [make() if self.main else None]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over processes of arrays of one shape, in float64, for all of them."""
        if self.size == 1:
            return values
        import torch
        from accelerate import PartialState

        total = torch.tensor(values, dtype=torch.float64, device=PartialState().device)
        torch.distributed.all_reduce(total)
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed
