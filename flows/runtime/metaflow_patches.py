"""Changes to how Metaflow runs a task here: where local cards are stored, how often garbage is collected, how the nodes
of a parallel step start on one machine, and how a mistyped command line is reported.
"""

import atexit
import gc
import os
import sys
from typing import Any


def collect_garbage_less_often() -> None:
    """Raise the garbage collector's thresholds, and skip its last pass at exit.

    Most objects of a task are imported modules, which stay: collecting took a quarter of the CPU-seconds of imports.
    """
    gc.set_threshold(100_000, 10, 10)
    atexit.register(_skip_last_collection)


def keep_cards_with_runs() -> None:
    """Store local cards beside the runs they belong to, in whichever working directory a command is typed.

    Metaflow 2.19 searches upwards from the working directory, and its get_storage_root returns None where
    METAFLOW_CARD_LOCALROOT names a folder.
    """
    from metaflow.metaflow_config import CARD_SUFFIX, DATASTORE_LOCAL_DIR, DATASTORE_SYSROOT_LOCAL
    from metaflow.plugins.cards.card_datastore import CardDatastore

    original = CardDatastore.get_storage_root

    def storage_root(storage_type: str) -> Any:
        if storage_type == "local" and DATASTORE_SYSROOT_LOCAL:
            return os.path.join(DATASTORE_SYSROOT_LOCAL, DATASTORE_LOCAL_DIR, CARD_SUFFIX)  # noqa: PTH118
        return original(storage_type)

    CardDatastore.get_storage_root = staticmethod(storage_root)


def start_nodes_with_this_python() -> None:
    """Run a parallel step on one machine by `parallel.run_control_task`.

    Metaflow 2.19 starts its workers by `environment.executable(step)`, which is the bare word "python": without an
    active virtual environment they die or are of another Python, and the control task waits for them for ever.
    """
    from metaflow.plugins import parallel_decorator

    from runtime import parallel

    parallel_decorator._local_multinode_control_task_step_func = parallel.run_control_task


def report_usage_errors_in_one_sentence() -> None:
    """Say what is wrong with a command line, and what to type, in one sentence; Metaflow's click needs four lines."""
    from metaflow._vendor.click.exceptions import UsageError

    def show(error: Any, file: Any = None) -> None:
        command = error.ctx.command_path if error.ctx is not None else sys.argv[0]
        message = error.format_message().rstrip(".")
        remedy = f"overrides are key=value, and `{command} --help` lists the options"
        if "--multirun" in message or message.endswith("option: -m"):
            remedy = "one run has one configuration: start a run for each, or let a study search with tuning=on"
        print(f"error: {message[:1].lower()}{message[1:]}; {remedy}", file=file or sys.stderr)

    UsageError.show = show


def _skip_last_collection() -> None:
    if "triton" not in sys.modules:  # its bindings would print a page about objects that are left
        gc.freeze()
