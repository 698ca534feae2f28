"""Use of CPU, memory, disk, network and GPU: MLflow measures and logs it, whatever becomes of its server meanwhile."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from mlflow.system_metrics import system_metrics_monitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


class _Monitor(SystemMetricsMonitor):
    """MLflow's, which would end at the first request that fails."""

    def monitor(self) -> None:
        while not self._shutdown_event.is_set():
            super().monitor()  # type: ignore[no-untyped-call]
            self._shutdown_event.wait(self.sampling_interval)


@contextlib.contextmanager
def logged(run_id: str) -> Iterator[None]:
    """Log system metrics of a run while the block runs. Those that a server that is away does not take are sent later.

    Nothing is said of such a server: whoever logs the training's own metrics says it.

    Args:
        run_id: of a run that is open.
    """
    logging.getLogger(system_metrics_monitor.__name__).setLevel(logging.CRITICAL)
    monitor: Any = _Monitor(run_id, resume_logging=True)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
