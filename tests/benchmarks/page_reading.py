"""Open the monitoring page of one prediction log, again and again: what `monitoring_page` runs and measures.

`python -m tests.benchmarks.page_reading PACKAGE_FOLDER HOME` prints one line of JSON.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from bentos.classifier import monitoring
from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.predictions.record import new_prediction_id
from fashion.predictions.slots import SPANS
from tests.benchmarks import peak_memory

NEW_ROWS = 1000
"""Predictions between two pages."""


def main(package: Path, home: Path) -> None:
    """Print the seconds of the first page, of counting the log, of later pages, and the peak memory."""
    os.environ["FASHION_HOME"] = str(home)
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    model = {"name": "fashion-classifier", "version": "3"}
    identity = Identity("fashion-classifier", "1", "Classifier", None)
    deployment = Deployment(settings, model, None)
    worker = Worker(deployment, current_home(), {}, model=package, shadow=None, folder=home, identity=identity)
    began_mb, started = peak_memory.megabytes(), time.perf_counter()
    monitoring.page(worker, SPANS["month"])
    first = time.perf_counter() - started
    processor = time.process_time()
    while not monitoring.traffic_answer(worker, SPANS["day"]).complete:
        time.sleep(2)
    counted, processor = time.perf_counter() - started, time.process_time() - processor
    answer = monitoring.traffic_answer(worker, SPANS["month"])
    pages: list[float] = []
    cpu: list[float] = []
    for span in SPANS.values():
        for _ in range(3):
            _append(worker)
            started, used = time.perf_counter(), time.thread_time()
            monitoring.page(worker, span)
            pages.append(time.perf_counter() - started)
            cpu.append(time.thread_time() - used)
    figures = {
        "rows": sum(each.predictions for each in answer.periods),
        "labelled": sum(each.labels.labelled for each in answer.periods),
        "first": first,
        "counted": counted,
        "processor": processor,
        "pages": pages,
        "pages_cpu": cpu,
        "before_mb": began_mb,
        "peak_mb": peak_memory.megabytes(),
        "file_mb": (home / "predictions-over-time.db").stat().st_size / 1e6,
    }
    worker.close()
    print(json.dumps(figures))


def _append(worker: Worker) -> None:
    """Log predictions of now."""
    (latest,) = worker.log.latest(1)
    now_us = time.time_ns() // 1000
    worker.log.append(
        dataclasses.replace(latest.record, prediction_id=new_prediction_id(), time_us=now_us) for _ in range(NEW_ROWS)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
