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

WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@]*=")
"""What a configuration word starts with."""
TAKES_VALUE = re.compile(r"--(tag|with|config|config-value|decospecs|namespace|environment|event-logger)$")
"""Options of Metaflow whose value may look like a configuration word."""


class ConfigurationError(MetaflowException):
    """A wrong configuration, told the way Metaflow tells errors."""

    headline = "Configuration"


def compose(text: str | Mapping[str, Any]) -> dict[str, Any]:
    """Parser of a flow's `config`: words as in HYDRA_ARGS, or a composed mapping (from Runner, as JSON)."""
    try:
        if isinstance(text, str) and not text.lstrip().startswith("{"):
            composed = config.compose(config.parse_overrides(text))
        else:
            composed = dict(json.loads(text) if isinstance(text, str) else text)
        config.load(composed)
    except config.ConfigError as error:
        raise ConfigurationError(str(error)) from None
    return composed


def words_from_environment(_: Any) -> str:
    """Default of a flow's `config`: the words of HYDRA_ARGS, one string for laptops and containers alike."""
    return os.environ.get("HYDRA_ARGS", "")


def run(flow: Callable[[], Any]) -> None:
    """Run a flow class, taking configuration words from anywhere on the command line.

    `flow.py run architecture=resnet` is what Metaflow would call
    `flow.py --config-value config architecture=resnet run`.
    """
    words, rest = lift(sys.argv[1:])
    try:
        words = [*config.parse_overrides(os.environ.get("HYDRA_ARGS", "")), *words]
        if words and "resume" in rest:
            raise config.ConfigError(f"{words[0]}: resume keeps the configuration of the run that it resumes")
        if "run" in rest:
            config.load(config.compose(words))  # refused here, before Metaflow starts
    except config.ConfigError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = rest
    os.environ["HYDRA_ARGS"] = shlex.join(words)
    flow()


def lift(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into configuration words and the rest."""
    words, rest = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_word = WORD.match(argument) and not TAKES_VALUE.match(before)
        (words if is_word else rest).append(argument)
    return words, rest


@contextlib.contextmanager
def told(*expected: type[Exception]) -> Iterator[None]:
    """End the task with one sentence, and without retries, on errors that trying again does not mend."""
    try:
        yield
    except expected as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(METAFLOW_EXIT_DISALLOW_RETRY)
