"""The output of steps as Dagster stores it, by processes that Ctrl-C does not reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData

from safevid_core.execution.children import without_interrupts


class ComputeLogs(LocalComputeLogManager):
    """Dagster's own storage of outputs. Its two watchers of a step print no traceback after Ctrl-C."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> ComputeLogs:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        with ExitStack() as stack:
            with without_interrupts():
                captured = stack.enter_context(super().capture_logs(log_key))
            yield captured
