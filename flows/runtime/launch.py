"""Start a flow from a command line with configuration overrides, and end it with one sentence on an expected error.

Knows no steps.
"""

import contextlib
import datetime
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from metaflow import current
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY, MetaflowException

from fashion.config.compose import compose, load_as, parse_overrides
from fashion.config.schema import ConfigError
from fashion.config.times import next_time
from fashion.config.train import TrainConfig
from fashion.home import Home, current_home
from fashion.registry import open_runs
from fashion.state import faults
from fashion.storage.blobs import disk_error
from runtime import argo, branches, events, metaflow_patches, supervision

Kind = TypeVar("Kind")
OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=")
"""How a configuration override begins."""
TAKES_VALUE = re.compile(r"--(overrides|deploy_overrides|tag|with|decospecs|namespace|environment|event-logger)$")
"""Metaflow's options whose value may look like an override."""
TAKES_TWO_VALUES = re.compile(r"--(config|config-value)$")
SCHEDULED = "FASHION_SCHEDULED"
"""Variable that a timer sets for the runs that it starts."""
RETRY = 1
"""Exit code of a task that Metaflow may retry."""


class ConfigurationError(MetaflowException):
    """A wrong configuration, reported the way Metaflow reports errors."""

    headline = "Configuration"


def parse_config(text: str | Mapping[str, Any], *, kind: type[Any] = TrainConfig) -> dict[str, Any]:
    """Compose and check the value of a flow's `config`.

    Args:
        text: overrides as in HYDRA_ARGS, or a composed mapping, which Metaflow's Runner passes as JSON.
        kind: the dataclass of the flow's configuration.

    Raises:
        ConfigurationError: an override or a value is not allowed.
    """
    try:
        if isinstance(text, str) and not text.lstrip().startswith("{"):
            composed = compose(parse_overrides(text), root=kind.root)
        else:
            composed = dict(json.loads(text) if isinstance(text, str) else text)
        load_as(kind, composed)
    except ConfigError as error:
        raise ConfigurationError(str(error)) from None
    return composed


def overrides_from_environment(_: Any) -> str:
    """Default of a flow's `config`: HYDRA_ARGS, which containers and shells set alike."""
    return os.environ.get("HYDRA_ARGS", "")


def with_overrides(config: Mapping[str, Any], overrides: str, *, kind: type[Any] = TrainConfig) -> dict[str, Any]:
    """Compose the configuration of a run anew with further overrides, of a parameter or of the event that started it.

    Args:
        config: what the flow was started with, or deployed to a cluster with; composed of HYDRA_ARGS.
        overrides: as in HYDRA_ARGS; empty keeps the configuration.
        kind: the dataclass of the flow's configuration.

    Raises:
        ConfigError: an override or a value is not allowed.
    """
    if not overrides.strip():
        return dict(config)
    before = parse_overrides(os.environ.get("HYDRA_ARGS", ""))
    composed = compose([*before, *parse_overrides(overrides)], root=kind.root)
    load_as(kind, composed)
    return composed


def stored_config(kind: type[Kind], configuration: Mapping[str, Any]) -> Kind:
    """Load the configuration that a run was started with, in one of its tasks.

    Args:
        kind: the dataclass of the flow's configuration.
        configuration: as it was composed when the run was started.

    Raises:
        ConfigError: it is not one of this version of the program.
    """
    try:
        return load_as(kind, configuration)
    except ConfigError as error:
        raise ConfigError(
            f"this run was started by another version of this program ({error}): start a new one in place of resuming "
            "it"
        ) from None


def run(
    flow: Callable[[], Any], *, kind: type[Any] = TrainConfig, check: Callable[[Any], None] = lambda _: None
) -> None:
    """Run a flow class, taking configuration overrides from anywhere on the command line.

    `flow.py run architecture=resnet` stands for `flow.py --config-value config architecture=resnet run`.

    Args:
        flow: the flow class.
        kind: the dataclass of the flow's configuration.
        check: a further check of the configuration, made before Metaflow starts; raises ConfigError.
    """
    overrides, rest = split_arguments(sys.argv[1:])
    try:
        if overrides and "resume" in rest:
            raise ConfigError(f"{overrides[0]}: resume keeps the configuration of the run that it resumes")
        # HYDRA_ARGS may be exported for runs in general: it does not keep one from being resumed.
        exported = "" if "resume" in rest else os.environ.get("HYDRA_ARGS", "")
        overrides = [*parse_overrides(exported), *overrides]
        if "run" in rest:
            overrides = with_pictures(overrides, kind=kind)
        if creates_template(rest):
            branch = branches.branch_of(rest, os.environ["METAFLOW_USER"])
            composed = compose(overrides, root=kind.root)
            overrides = [*branches.branch_overrides(branch, composed, overrides), *overrides]
        if "run" in rest or creates_template(rest):
            check(load_as(kind, compose(overrides, root=kind.root)))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = rest
    os.environ["HYDRA_ARGS"] = shlex.join(overrides)
    run_plain(flow)


def with_pictures(overrides: Sequence[str], *, kind: type[Any]) -> list[str]:
    """Put `data=NAME` in the place of `data.root=PATH`: a training reads those pictures, others need that it did.

    Args:
        overrides: of a run.
        kind: the dataclass of the flow's configuration.

    Raises:
        ConfigError: a value is not allowed, or the pictures cannot be used.
    """
    if not any(override.startswith("data.root=") for override in overrides):
        return list(overrides)
    from fashion.data import config_file, requested
    from fashion.data.found import screen
    from fashion.data.manifest import DataError

    try:
        if kind is not TrainConfig:
            return requested.with_known(overrides)
        replaced, adopted = requested.with_adopted(overrides, current_home().data)
    except (DataError, OSError) as error:
        raise ConfigError(str(error)) from None
    if adopted is not None:
        print(screen(adopted.found))
        new = "" if adopted.is_new else ", which was there already"
        print(f"{'kept':14}data={adopted.name}: {config_file.path_of(adopted.name)} and its manifest are yours to keep")
        print(f"{'version':14}{adopted.version.digest[:12]}{new}\n", flush=True)
    return replaced


def run_plain(flow: Callable[[], Any]) -> None:
    """Run a flow class that has parameters of Metaflow's instead of a configuration."""
    metaflow_patches.use_utf8()
    metaflow_patches.keep_cards_with_runs()
    metaflow_patches.collect_garbage_less_often()
    metaflow_patches.start_nodes_with_this_python()
    metaflow_patches.say_faults_in_one_sentence(flow)
    metaflow_patches.say_when_the_latest_run_is_unknown()
    metaflow_patches.say_when_a_task_was_killed()
    metaflow_patches.report_usage_errors_in_one_sentence()
    if "argo-workflows" in sys.argv:
        argo.end_at_disallowed_retries()
        if folder := os.environ.get("FASHION_MANIFESTS"):
            argo.write_instead_of_sending(Path(folder))
    if "step" in sys.argv[1:]:
        supervision.work()
    with supervision.schedule() if {"run", "resume"} & set(sys.argv[1:]) else contextlib.nullcontext():
        flow()


def next_due_us(cron_line: str, now_us: int) -> int:
    """When the next run of a schedule is due, microseconds since 1970; 0 in a run that no schedule has started.

    Args:
        cron_line: of the configuration.
        now_us: microseconds since 1970.
    """
    if not os.environ.get(SCHEDULED) and not events.in_pod():
        return 0
    return int(next_time(cron_line, datetime.datetime.fromtimestamp(now_us / 1e6, datetime.UTC)).timestamp() * 1e6)


def creates_template(arguments: Sequence[str]) -> bool:
    """True if a command line compiles a flow for Argo."""
    return "argo-workflows" in arguments and "create" in arguments


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into configuration overrides and Metaflow's own arguments."""
    overrides: list[str] = []
    rest: list[str] = []
    for second, before, argument in zip(["", "", *arguments], ["", *arguments], arguments, strict=False):
        is_value = TAKES_VALUE.match(before) or TAKES_TWO_VALUES.match(before) or TAKES_TWO_VALUES.match(second)
        is_override = OVERRIDE.match(argument) and not is_value
        (overrides if is_override else rest).append(argument)
    return overrides, rest


@contextlib.contextmanager
def exit_on(
    *expected: type[Exception],
    first: Callable[[Exception], None] = lambda _: None,
    code: int = METAFLOW_EXIT_DISALLOW_RETRY,
) -> Iterator[None]:
    """End the task with one sentence, and without retries, on errors that a retry does not mend.

    The MLflow run that the task continues is ended too.

    Args:
        expected: classes of these errors; any other error passes, but MLflow's errors of a server or a bucket that
            cannot be used. A full disk counts as StoreUnavailable.
        first: called with the error before the task ends.
        code: `RETRY` for errors that a retry may mend.
    """
    try:
        yield
    except Exception as raised:
        away = supervision.server_error(raised)
        error = away or disk_error(raised) or raised
        if away is None and not isinstance(error, expected):
            raise
        first(error)
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        if away is None:
            supervision.end_continued(open_runs.FAILED)
        os._exit(code)


def connect(home: Home) -> None:
    """Connect to MLflow, or end the task with one sentence where its server cannot be used."""
    from fashion.registry import tracking
    from fashion.storage.servers import ServerUnavailable

    with exit_on(ServerUnavailable):
        tracking.connect(home)


@contextlib.contextmanager
def mlflow_run(experiment_id: str, run_id: str, *, connected: bool = True) -> Iterator[None]:
    """Continue an MLflow run in this block; whatever ends the block early ends the run.

    Args:
        experiment_id: of the run.
        run_id: of the run.
        connected: False for a block that logs nothing: MLflow, which takes a second to import, is then used only where
            an earlier attempt may have ended the run.
    """
    from fashion.storage.servers import ServerUnavailable

    if connected or current.retry_count or current.origin_run_id:
        from fashion.registry import tracking

        connect(current_home())
        with exit_on(ServerUnavailable):
            tracking.continue_run(experiment_id, run_id)
    with exit_on(ServerUnavailable), supervision.continued(run_id):
        yield


@contextlib.contextmanager
def single_run(name: str) -> Iterator[None]:
    """Let one run of a flow at a time work in this home; a second one prints a sentence and ends.

    Only the process that starts a run takes the lock: its tasks, and other commands, pass.

    Args:
        name: of the flow, used for the lock file and the sentence.
    """
    import fcntl

    if "run" not in sys.argv[1:] and "resume" not in sys.argv[1:]:
        yield
        return
    path = current_home().root / f"{name}.lock"
    try:
        opened = path.open("a+")
    except OSError as error:
        fault = faults.find(error, path)
        sys.exit(f"error: {path} cannot be used: {error}" if fault is None else f"error: {fault.sentence}")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"another {name} flow is running ({lock.read().strip()}): this one ends", flush=True)
            sys.exit(0)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield
