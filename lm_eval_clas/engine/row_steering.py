"""`RowSteering`: what one worker of vLLM holds to steer: tables, the row of each running request, the row of each token."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lm_eval_clas.engine.refusals import refuse_config
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT, NEUTRAL, RowRoom, RowTables, steered_tokens
from lm_eval_clas.engine.runner_seams import follow_steps
from lm_eval_clas.engine.steered_layers import find_row_outputs, find_row_projections, put_rows, row_tables_in


class RowSteering:
    """Steers the tokens of each request by the row that the request names.

    It is put into the model right after the weights, before vLLM profiles memory, compiles or captures graphs.

    Args:
        runner: vLLM's model runner, with its model.
        config: vLLM's configuration; `additional_config` has what `engine_arguments` put there.

    Raises:
        ClasError: the model, or something that the engine was started with, does not go with steering.
    """

    def __init__(self, runner: Any, config: Any) -> None:
        refuse_config(config)
        asked = config.additional_config[EXTRA_ARGUMENT]
        room = RowRoom(**asked["room"])
        self._names: dict[str, int] = {}
        self._by_request: dict[str, str | None] = {}
        self._scheduled: Counter[str] = Counter()
        self._stepping = threading.RLock()  # some executors of vLLM run steps in one thread and what is asked of it in another
        self._rows = torch.zeros(runner.max_num_tokens, dtype=torch.int64, device=runner.device)
        model, of_model = runner.get_model(), config.model_config
        count = of_model.get_total_num_hidden_layers()
        if room.place == "neurons":
            self._modules = find_row_projections(model, count, room.layers, asked["site"], asked["projection"])
        else:
            self._modules = find_row_outputs(model, count, room.layers, of_model.dtype)
        ones = torch.ones_like(self._rows)
        for layer, module in self._modules.items():
            found = module.input_size if room.place == "neurons" else of_model.get_hidden_size()
            put_rows(module, room, layer, self._rows, ones, found, of_model.dtype)
        follow_steps(runner, self.step, self.fill)

    def load(self, dumped: bytes) -> dict[str, list[int]]:
        """Takes other tables, in place.

        Args:
            dumped: of `RowTables`.

        Returns:
            the layers of this process in which a row changes anything in the model's dtype, by row.

        Raises:
            ClasError: they do not fit.
        """
        tables = RowTables.read(dumped)
        names = {name: 1 + place for place, name in enumerate(tables.rows)}
        changed: dict[str, list[int]] = {name: [] for name in names}
        with self._between_steps():
            for layer, module in self._modules.items():
                different = torch.zeros(len(module.clas_counts), dtype=torch.bool, device=self._rows.device)
                for operand, here in row_tables_in(module).items():
                    here.fill_(NEUTRAL[operand])
                    if (table := tables.tables.get(operand, {}).get(layer)) is not None:
                        here[: len(table)].copy_(table[:, module.clas_columns])
                    different |= (here != NEUTRAL[operand]).any(1)
                in_row = different.tolist()
                for name, row in names.items():
                    if in_row[row]:
                        changed[name].append(layer)
            self._names = names
            self._forget_counts()  # they are of rows that are no more
        return changed

    @contextmanager
    def step(self, scheduler_output: Any) -> Iterator[None]:
        """Inside it, a step of the engine runs."""
        with self._stepping:
            self.note(scheduler_output)
            yield

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Inside it, no step runs, and none that ran is still under way on a GPU: what is counted is of whole steps."""
        with self._stepping:
            self._finish()
            yield
            self._finish()

    def _finish(self) -> None:
        if self._rows.device.type != "cpu":
            torch.accelerator.synchronize(self._rows.device)

    def note(self, scheduler_output: Any) -> None:
        """Takes the row of each request that begins, and forgets those that ended.

        A request that was interrupted keeps its row until it ends.
        """
        for ended in scheduler_output.finished_req_ids:
            self._by_request.pop(ended, None)
        for new in scheduler_output.scheduled_new_reqs:
            extra = (new.sampling_params.extra_args if new.sampling_params else None) or {}
            name = extra.get(EXTRA_ARGUMENT)
            self._by_request[new.req_id] = None if name is None else str(name)  # a client may send anything

    def fill(self, requests: Sequence[str], tokens: Any) -> None:
        """Writes the row of each token of a step.

        A name that has no row (any more) is not steered, but counted as asked for: whoever compares the counts finds that no
        layer did it. An error here would end the engine, and with it the requests of everybody else.

        Args:
            requests: their ids, in the order of the step.
            tokens: how many each has.
        """
        names = [self._by_request[one] for one in requests]
        rows = np.fromiter((0 if name is None else self._names.get(name, 0) for name in names), np.int64, len(names))
        for name, count in zip(names, np.asarray(tokens).tolist(), strict=True):
            if name is not None:
                self._scheduled[name] += count
        by_token = torch.from_numpy(np.repeat(rows, tokens))
        if self._rows.device.type != "cpu":
            # Fresh memory for each step: the copy may be under way when the next step is prepared.
            by_token = by_token.pin_memory()
        self._rows.zero_()
        self._rows[: len(by_token)].copy_(by_token, non_blocking=True)

    def idle(self) -> None:
        """Steers nothing in a step that has no requests, which engines run to keep in step with others."""
        self._rows.zero_()

    def take_counts(self) -> tuple[dict[str, int], dict[int, dict[str, int]]]:
        """What ran since this was last asked.

        Returns:
            tokens by name of a row that steps had, and by layer of this process and name, those that the layer changed.
        """
        with self._between_steps():
            counted = dict(self._scheduled), self._steered()
            self._forget_counts()
        return counted

    def require_steered(self, names: Sequence[str]) -> None:
        """Compares the counts of rows, and leaves them as they are, so that any number of servers can ask.

        Args:
            names: of the rows; one that is not there has been left alone, which counts as well.

        Raises:
            ClasError: a layer did not change each token of a step once.
        """
        with self._between_steps():
            steered_tokens([({name: self._scheduled[name] for name in names}, self._steered())])

    def _steered(self) -> dict[int, dict[str, int]]:
        """Tokens that each layer changed, by layer and name."""
        steered = {}
        for layer, module in self._modules.items():
            counts = module.clas_counts.tolist()
            steered[layer] = {name: counts[row] for name, row in self._names.items() if counts[row]}
        return steered

    def _forget_counts(self) -> None:
        for module in self._modules.values():
            module.clas_counts.zero_()
        self._scheduled.clear()

    @property
    def memory(self) -> int:
        """Bytes of this process that tables, rows and counts take."""
        modules = self._modules.values()
        buffers = [one for module in modules for one in (*row_tables_in(module).values(), module.clas_counts)]
        return sum(one.numel() * one.element_size() for one in (*buffers, self._rows, self._rows))
