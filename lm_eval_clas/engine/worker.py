"""`SteeringWorker`: vLLM's own worker, CPU or GPU, that steers. Given by name as `worker_cls`; runs in vLLM's processes."""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform

from lm_eval_clas.engine.row_steering import RowSteering

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker
else:
    from vllm.v1.worker.gpu_worker import Worker


class SteeringWorker(Worker):
    """Steers right after the weights are loaded; everything else is vLLM's."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        self.row_steering = RowSteering(self.model_runner, self.vllm_config)

    def execute_dummy_batch(self) -> None:
        self.row_steering.idle()
        super().execute_dummy_batch()

    # Called by name, through `collective_rpc`.

    def clas_load(self, dumped: bytes) -> dict[str, list[int]]:
        """As `RowSteering.load`."""
        return self.row_steering.load(dumped)

    def clas_take_counts(self) -> tuple[dict[str, int], dict[int, dict[str, int]]]:
        """As `RowSteering.take_counts`."""
        return self.row_steering.take_counts()

    def clas_require_steered(self, names: list[str]) -> None:
        """As `RowSteering.require_steered`."""
        self.row_steering.require_steered(names)

    def clas_memory(self) -> int:
        """As `RowSteering.memory`."""
        return self.row_steering.memory
