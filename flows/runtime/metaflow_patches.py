"""Changes to how Metaflow runs a task here: where local cards are stored, how often garbage is collected, how the nodes
of a parallel step start on one machine, and how errors of the machine, of damaged runs and of a command line are told.
"""

import atexit
import codecs
import gc
import locale
import os
import pickle
import signal
import sys
import traceback
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fashion.home import root
from fashion.state import faults
from fashion.state.flow_runs import latest_run, newest_run

ORIGIN, PARAMETERS = "origin-run-id", "_parameters"
"""Metaflow's names for the run that a task was resumed from, and for the task that holds a run's parameters."""


class UnknownRun(Exception):
    """Which run is the latest cannot be read. The message is one sentence with the remedy."""


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


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where its locale's encoding is ASCII, which Metaflow refuses."""
    if codecs.lookup(locale.getpreferredencoding()).name == "ascii":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def say_faults_in_one_sentence(flow: Any) -> None:
    """Let a task or a run end with one sentence where the machine is at fault, or where an error is written for people.

    Metaflow 2.19 prints the traceback of every error that is not its own, once for each retry.

    Args:
        flow: the flow class; Metaflow's command line takes its options from it when it is imported.
    """
    from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY
    from metaflow.parameters import flow_context

    with flow_context(flow):
        from metaflow import cli

    original = cli.print_unknown_exception

    def say(error: Exception) -> None:
        fault = faults.find(error, root())
        if fault is not None:
            sentence = fault.sentence
        elif _is_for_people(error):
            sentence = str(error)
        elif _is_of_a_damaged_run(error):
            reason = (
                f"{type(error).__name__}: {str(error).splitlines()[0][:100]}" if str(error) else type(error).__name__
            )
            sentence = f"what an earlier task stored cannot be read ({reason}): start a new run in place of this one"
        else:
            original(error)
            return
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        if "step" in sys.argv and (fault is None or not fault.may_pass):
            sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)

    cli.print_unknown_exception = say


def say_when_the_latest_run_is_unknown() -> None:
    """Let `resume` end with one sentence where the file that names the latest run is damaged or empty.

    Metaflow 2.19 takes whatever it holds for the id of a run; a full disk leaves it empty. Called before the module of
    `run` and `resume` is imported, which takes their options from the flow once it is set up.
    """
    from metaflow import cli, util
    from metaflow.plugins.datastores.local_storage import LocalStorage

    def get_latest_run_id(echo: Any, flow_name: str) -> str | None:
        store = LocalStorage.datastore_root or LocalStorage.get_datastore_root_from_config(echo, create_on_absent=False)
        folder = Path(store or "", flow_name)
        if store is None or not (folder / "latest_run").exists():
            return None
        run_id = latest_run(folder)
        if run_id is None:
            newest = newest_run(folder)
            known = "" if newest is None else f"; the newest here is {newest}"
            raise UnknownRun(f"{folder / 'latest_run'} names no run: name it by `resume --origin-run-id RUN`{known}")
        return run_id

    util.get_latest_run_id = cli.get_latest_run_id = get_latest_run_id


def go_on_from_resumed_runs() -> None:
    """Let `resume` go on from a run that was itself resumed, once that one holds what had finished before it.

    Metaflow 2.19 notes the latest run in `run` only: after a `resume` that was killed, the next one would do again what
    that one had done. Which run it resumed is stored as Metaflow stores it of tasks.
    """
    from metaflow import util
    from metaflow.metadata_provider import MetaDatum
    from metaflow.runtime import NativeRuntime

    original = NativeRuntime.clone_original_run

    def clone_original_run(runtime: Any, *args: Any, **options: Any) -> None:
        original(runtime, *args, **options)
        origin = MetaDatum(ORIGIN, str(runtime._clone_run_id), ORIGIN, [])
        runtime._metadata.register_metadata(runtime._run_id, PARAMETERS, runtime._params_task.task_id, [origin])
        named = SimpleNamespace(flow=runtime._flow, echo=lambda *_, **__: None)
        util.write_latest_run_id(named, runtime._run_id)

    NativeRuntime.clone_original_run = clone_original_run


def unfinished_origins(flow: str, origin: str | None) -> list[str]:
    """The runs that a run resumes, the latest first, until one whose first step had finished.

    Args:
        flow: name of the flow.
        origin: id of the run that it resumes itself; None for none.
    """
    from metaflow import Run, Task

    found: list[str] = []
    while origin is not None and origin not in found:
        run = Run(f"{flow}/{origin}", _namespace_check=False)
        if "start" in run and any(task.successful for task in run["start"]):
            break
        found.append(origin)
        parameters = Task(f"{flow}/{origin}/{PARAMETERS}/0", _namespace_check=False)
        origin = parameters.metadata_dict.get(ORIGIN)
    return found


def say_when_a_task_was_killed() -> None:
    """Let a run say why a task may have been killed from outside: Metaflow 2.19 says that it failed."""
    from metaflow.runtime import Worker

    original = Worker.terminate

    def terminate(worker: Any) -> Any:
        if worker._proc.wait() == -signal.SIGKILL and not worker.killed:
            sentence = f"The task was killed, probably because memory ran out: {faults.LESS_MEMORY}."
            worker.emit_log(sentence.encode(), worker._stderr, system_msg=True)
        return original(worker)

    Worker.terminate = terminate


def _is_for_people(error: BaseException) -> bool:
    """True for this project's own errors, whose messages are sentences; False for those of the language."""
    return type(error).__module__.partition(".")[0] in ("fashion", "bentos", "runtime")


def _is_of_a_damaged_run(error: BaseException) -> bool:
    """True if Metaflow could not read what it had stored, of which its own code does not think."""
    if isinstance(error, UnboundLocalError):
        return "param_ds" in str(error)  # `resume` found no parameters of the run
    kinds = (ValueError, KeyError, EOFError, OSError, zlib.error, pickle.UnpicklingError)
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return isinstance(error, kinds) and any("/metaflow/datastore/" in each for each in files)


def report_usage_errors_in_one_sentence() -> None:
    """Say what is wrong with a command line, and what to type, in one sentence; Metaflow's click needs four lines."""
    # Metaflow brings a click of its own, whose errors are not those of the click that is installed.
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
