"""Start a flow from the command line: configuration words, and errors as one sentence. Knows no particular flow."""

import atexit
import contextlib
import gc
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY, MetaflowException

from fashion.config.compose import compose, load_as, parse_overrides
from fashion.config.drift import RetrainConfig
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig, is_shipped
from fashion.home import current_home

WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=")
"""What a configuration word starts with."""
TAKES_VALUE = re.compile(r"--(tag|with|decospecs|namespace|environment|event-logger)$")
"""Options of Metaflow whose value may look like a configuration word."""
RETRAIN = "fashion-retrain"
"""The event that asks for a training."""
TAKES_TWO_VALUES = re.compile(r"--(config|config-value)$")


class ConfigurationError(MetaflowException):
    """A wrong configuration, told the way Metaflow tells errors."""

    headline = "Configuration"


def parse_config(text: str | Mapping[str, Any], *, kind: type[Any] = TrainConfig) -> dict[str, Any]:
    """Parser of a flow's `config`: words as in HYDRA_ARGS, or a composed mapping (from Runner, as JSON)."""
    try:
        if isinstance(text, str) and not text.lstrip().startswith("{"):
            composed = compose(parse_overrides(text), root=kind.root)
        else:
            composed = dict(json.loads(text) if isinstance(text, str) else text)
        load_as(kind, composed)
    except ConfigError as error:
        raise ConfigurationError(str(error)) from None
    return composed


def words_from_environment(_: Any) -> str:
    """Default of a flow's `config`: the words of HYDRA_ARGS, one string for laptops and containers alike."""
    return os.environ.get("HYDRA_ARGS", "")


def run(
    flow: Callable[[], Any], *, kind: type[Any] = TrainConfig, check: Callable[[Any], None] = lambda _: None
) -> None:
    """Run a flow class, taking configuration words from anywhere on the command line.

    `flow.py run architecture=resnet` is what Metaflow would call
    `flow.py --config-value config architecture=resnet run`.

    Args:
        kind: the dataclass of the flow's configuration.
        check: what only the flow's libraries know of a configuration; raises ConfigError.
    """
    words, rest = lift(sys.argv[1:])
    try:
        if words and "resume" in rest:
            raise ConfigError(f"{words[0]}: resume keeps the configuration of the run that it resumes")
        # What a shell has exported for runs is no reason to refuse to resume one.
        exported = "" if "resume" in rest else os.environ.get("HYDRA_ARGS", "")
        words = [*parse_overrides(exported), *words]
        if "run" in rest:
            check(load_as(kind, compose(words, root=kind.root)))  # refused here, before Metaflow starts
    except ConfigError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = rest
    os.environ["HYDRA_ARGS"] = shlex.join(words)
    run_plain(flow)


def run_plain(flow: Callable[[], Any]) -> None:
    """Run a flow class that has parameters of Metaflow's instead of a configuration."""
    _keep_cards_with_runs()
    _collect_seldom()
    flow()


def lift(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into configuration words and the rest."""
    words, rest = [], []
    for second, before, argument in zip(["", "", *arguments], ["", *arguments], arguments, strict=False):
        is_value = TAKES_VALUE.match(before) or TAKES_TWO_VALUES.match(before) or TAKES_TWO_VALUES.match(second)
        is_word = WORD.match(argument) and not is_value
        (words if is_word else rest).append(argument)
    return words, rest


def check_network(settings: TrainConfig) -> None:
    """Check what only the libraries of training know; they are loaded only where there is doubt.

    Raises:
        ConfigError: there is no network of the configured name, or it cannot be built for this data, or exported.
    """
    if not is_shipped(settings.architecture):
        from fashion.training import export, models

        data, shape = settings.data, {"channels": settings.data.channels, "size": settings.data.size}
        network = models.build(settings.architecture, num_classes=len(data.class_names), **shape)
        export.check(network, **shape)


@contextlib.contextmanager
def told(*expected: type[Exception], first: Callable[[Exception], None] = lambda _: None) -> Iterator[None]:
    """End the task with one sentence, and without retries, on errors that trying again does not mend.

    Args:
        first: called with the error before.
    """
    try:
        yield
    except expected as error:
        first(error)
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(METAFLOW_EXIT_DISALLOW_RETRY)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one run of a flow at a time work on this machine's state; a second one ends, with a sentence.

    Only the process that starts a run is meant: its tasks, and other commands, pass.
    """
    import fcntl

    if "run" not in sys.argv[1:] and "resume" not in sys.argv[1:]:
        yield
        return
    path = current_home().root / f"{name}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"another {name} flow is at work ({lock.read().strip()}): this one leaves it to that", flush=True)
            sys.exit(0)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def on_cluster() -> bool:
    """Whether other flows are started by events, not from here."""
    return bool(os.environ.get("METAFLOW_ARGO_EVENTS_WEBHOOK_URL"))


def publish_event(name: str, payload: Mapping[str, Any]) -> str:
    """Publish an Argo event; whoever is triggered by it starts. Return a sentence."""
    from metaflow.integrations import ArgoEvent

    ArgoEvent(name).publish(payload={key: json.dumps(value) for key, value in payload.items()}, ignore_errors=False)
    return f"event {name} published"


def triggered(name: str) -> Callable[[type], type]:
    """A decorator that lets an event start a flow, on a cluster that has events; elsewhere it does nothing."""
    if not on_cluster():
        return lambda flow: flow
    from metaflow import trigger

    return trigger(event=name)


def was_triggered(name: str) -> bool:
    """Whether the run under way was started by an event of this name."""
    from metaflow import current

    trigger = getattr(current, "trigger", None)  # there is none on one machine
    return trigger is not None and any(event.name == name for event in trigger.events or ())


def after(flow: str) -> Callable[[type], type]:
    """A decorator that starts a flow when another has ended well, on a cluster that has events."""
    if not on_cluster():
        return lambda flow: flow
    from metaflow import trigger_on_finish

    return trigger_on_finish(flow=flow)


def train_and_deploy(words: Sequence[str], settings: RetrainConfig) -> str:
    """Run TrainFlow on this machine, and DeployFlow where its version became the champion. Return a sentence."""
    trained = _finished("train_flow.py", words)
    if not trained.successful:
        return f"training failed: see {trained.pathspec}; the champion stays"
    if not (trained.data.promoted and settings.deploy):
        return trained.data.outcome
    deployed = _finished("deploy_flow.py", parse_overrides(settings.deploy_overrides))
    built = f"bento {deployed.data.bento} is built" if deployed.successful else f"building failed: {deployed.pathspec}"
    return f"{trained.data.outcome}; {built}"


def _finished(file: str, words: Sequence[str]) -> Any:
    """Run a flow to its end, and return its run."""
    from metaflow import Runner

    # Runner composes the flow's configuration in this process first, whose words are those of another flow.
    os.environ["HYDRA_ARGS"] = shlex.join(words)
    with Runner(str(Path(__file__).with_name(file)), show_output=True).run() as running:
        return running.run


def _collect_seldom() -> None:
    """Look for garbage less often, and not once more at the end: most of what a task makes are imports, which stay.

    Each of a run's tasks spends CPU-seconds on importing; a quarter of them went into looking through what it got.
    """
    gc.set_threshold(100_000, 10, 10)
    atexit.register(_leave_the_rest)


def _leave_the_rest() -> None:
    if "triton" not in sys.modules:  # its bindings would print a page about all that is left
        gc.freeze()


def _keep_cards_with_runs() -> None:
    """Store local cards beside the runs they belong to, wherever a command is typed.

    Metaflow 2.19 looks for a place upwards from the working directory, and has none at all where
    METAFLOW_CARD_LOCALROOT says one: its get_storage_root returns None then.
    """
    from metaflow.metaflow_config import CARD_SUFFIX, DATASTORE_LOCAL_DIR, DATASTORE_SYSROOT_LOCAL
    from metaflow.plugins.cards.card_datastore import CardDatastore

    elsewhere = CardDatastore.get_storage_root

    def storage_root(storage_type: str) -> Any:
        if storage_type == "local" and DATASTORE_SYSROOT_LOCAL:
            return os.path.join(DATASTORE_SYSROOT_LOCAL, DATASTORE_LOCAL_DIR, CARD_SUFFIX)  # noqa: PTH118
        return elsewhere(storage_type)

    CardDatastore.get_storage_root = staticmethod(storage_root)
