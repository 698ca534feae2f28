"""The processes of a flow end what they began: MLflow runs, temporary files, and tasks whose scheduler was killed.

Knows no particular flow.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from fashion.home import current_home
from fashion.registry import open_runs
from fashion.storage import owned

CHECK_SECONDS = 0.5
"""Between two looks of a task at whether its scheduler lives."""
END_SECONDS = 30.0
"""How long a task may take to end its MLflow run, once its scheduler is gone."""
SERVER_SECONDS = "5"
"""How long a server may take to end a run, once the flow is over."""

_interrupted = threading.Event()
_continued: list[str] = []
"""MLflow runs that this task works on."""
_PARENT = os.getppid()
"""The process that began this one; of a task, its scheduler."""


@contextlib.contextmanager
def schedule() -> Iterator[None]:
    """Run a flow's tasks in this block. If it fails or is stopped, the MLflow runs that are open are ended.

    A flow that a task of another flow started ends with that task.
    """
    _interrupt_on_signals(stop_children)
    if open_runs.VARIABLE in os.environ:
        threading.Thread(target=_watch_parent, daemon=True).start()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(owned.temporary_folder())
            folder = stack.enter_context(open_runs.owning(current_home()))
        except OSError as error:
            where = error.filename or current_home().root
            sys.exit(f"error: {where} cannot be written ({error.strerror}): set FASHION_HOME to a folder that can")
        try:
            yield
        except SystemExit as ending:
            if ending.code:
                _end_runs_of(folder)
            raise
        except BaseException:
            _end_runs_of(folder)
            raise


def work() -> None:
    """Let this task end when it is told to or when its scheduler was killed, and end its MLflow run with it.

    A task that outlived its scheduler would train beside the run that resumes it.
    """
    _interrupt_on_signals(lambda: None)
    threading.Thread(target=_watch_parent, daemon=True).start()


@contextlib.contextmanager
def continued(run_id: str) -> Iterator[None]:
    """End an MLflow run if the block is ended early: FAILED by an error, KILLED by a signal or without its scheduler.

    Whoever prints after its scheduler was killed gets an error of the pipe before `_watch_parent` looks again.
    A server that is away is not waited for once more: the scheduler ends the run, or the next connection does.
    """
    _continued.append(run_id)
    try:
        yield
    except BaseException as error:
        if server_error(error) is None:
            has_failed = isinstance(error, Exception) and not _is_orphan()
            end_continued(open_runs.FAILED if has_failed else open_runs.KILLED)
        raise
    finally:
        with contextlib.suppress(ValueError):
            _continued.remove(run_id)


def server_error(error: BaseException) -> OSError | None:
    """What to say of an error of MLflow's client if a server or a bucket cannot be used; None for other errors."""
    if "mlflow" not in sys.modules:
        return None
    from fashion.registry import server

    return server.explain(error)


def end_continued(status: str) -> None:
    """End the MLflow runs that this task works on. What cannot be ended now is ended by the scheduler or after it.

    Args:
        status: KILLED or FAILED.
    """
    while _continued:
        from fashion.registry import tracking  # not imported by a task that succeeds without it

        with contextlib.suppress(Exception):
            tracking.set_store(current_home())
            tracking.end_run(_continued.pop(), status)


def stop_children() -> None:
    """Let the processes that this one started end, as those of a flow's tasks, or of a flow that a task runs."""
    with contextlib.suppress(ImportError):  # the scheduler ends them too, after some seconds
        import psutil

        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                child.terminate()


def _end_runs_of(folder: Any) -> None:
    """End what a flow left open, unless its tasks have."""
    if not open_runs.has_opened(folder):
        return
    status = open_runs.KILLED if _interrupted.is_set() else open_runs.FAILED
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": SERVER_SECONDS}
    from fashion.registry import tracking

    try:
        tracking.set_store(current_home())
        open_runs.end_of(folder, status)
    except Exception:  # whatever a store raises that is away
        open_runs.leave(folder, status)


def _interrupt_on_signals(first: Any) -> None:
    """Raise KeyboardInterrupt on the signals that end a process, unless they are ignored, as under nohup."""

    def interrupt(number: int, _: FrameType | None) -> None:
        if _interrupted.is_set() and number != signal.SIGINT:  # it is ending
            return
        _interrupted.set()
        if number != signal.SIGINT:  # Ctrl-C reaches all processes of the terminal
            first()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _is_orphan() -> bool:
    """Whether the scheduler of this task is gone."""
    return os.getppid() != _PARENT


def _watch_parent() -> None:
    while not _is_orphan():
        time.sleep(CHECK_SECONDS)
    with contextlib.suppress(OSError):
        print("error: the process that started this one has ended, and so does it", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)
