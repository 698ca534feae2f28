"""Start a flow from the command line: configuration words, and errors as one sentence. Knows no particular flow."""

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY, MetaflowException

from fashion import config
from fashion.config import TrainConfig

WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=")
"""What a configuration word starts with."""
TAKES_VALUE = re.compile(r"--(tag|with|decospecs|namespace|environment|event-logger)$")
"""Options of Metaflow whose value may look like a configuration word."""
TAKES_TWO_VALUES = re.compile(r"--(config|config-value)$")


class ConfigurationError(MetaflowException):
    """A wrong configuration, told the way Metaflow tells errors."""

    headline = "Configuration"


def compose(text: str | Mapping[str, Any], *, kind: type[Any] = TrainConfig) -> dict[str, Any]:
    """Parser of a flow's `config`: words as in HYDRA_ARGS, or a composed mapping (from Runner, as JSON)."""
    try:
        if isinstance(text, str) and not text.lstrip().startswith("{"):
            composed = config.compose(config.parse_overrides(text), root=kind.root)
        else:
            composed = dict(json.loads(text) if isinstance(text, str) else text)
        config.load_as(kind, composed)
    except config.ConfigError as error:
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
        words = [*config.parse_overrides(os.environ.get("HYDRA_ARGS", "")), *words]
        if words and "resume" in rest:
            raise config.ConfigError(f"{words[0]}: resume keeps the configuration of the run that it resumes")
        if "run" in rest:
            check(config.load_as(kind, config.compose(words, root=kind.root)))  # refused here, before Metaflow starts
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = rest
    os.environ["HYDRA_ARGS"] = shlex.join(words)
    run_plain(flow)


def run_plain(flow: Callable[[], Any]) -> None:
    """Run a flow class that has parameters of Metaflow's instead of a configuration."""
    _keep_cards_with_runs()
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
        ConfigError: there is no network of the configured name.
    """
    if settings.architecture.name not in config.architecture_names():
        from fashion.training import models

        models.check_name(settings.architecture.name)


@contextlib.contextmanager
def told(*expected: type[Exception]) -> Iterator[None]:
    """End the task with one sentence, and without retries, on errors that trying again does not mend."""
    try:
        yield
    except expected as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(METAFLOW_EXIT_DISALLOW_RETRY)


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
