"""Compose configuration files with Hydra, and load the result into a dataclass. Knows none of the dataclasses.

A wrong key or value is rejected here with one sentence, which names it and what is allowed.
"""

import dataclasses
import functools
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fashion.config.schema import ConfigError
from fashion.home import REPOSITORY

Kind = TypeVar("Kind")

CONFIGS = Path(os.environ.get("FASHION_CONFIGS") or REPOSITORY / "configs")


def compose(overrides: Sequence[str] = (), *, root: str = "train") -> dict[str, Any]:
    """Compose `configs/<root>.yaml` with Hydra overrides into plain dicts and lists.

    Raises:
        ConfigError: an override names a key, group or option that does not exist, or is not `key=value`.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_overrides(overrides)
    overrides = _with_architecture_of_name(overrides)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        try:
            composed = hydra_compose(root, list(overrides))
            plain = OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            groups = [o for o in overrides if (CONFIGS / o.split("=")[0]).is_dir()]
            plain = OmegaConf.to_container(hydra_compose(root, groups), resolve=True)
            raise ConfigError(_explain(overrides, plain, error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_as(kind: type[Kind], mapping: Mapping[str, Any]) -> Kind:
    """Load a composed mapping into a dataclass.

    Args:
        kind: the dataclass.
        mapping: as `compose` returns it.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    from pydantic import ValidationError

    try:
        config: Kind = _adapter(kind).validate_python(dict(mapping))  # type: ignore[arg-type]  # classes are hashable
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(entry, mapping) for entry in error.errors())) from None
    _check_switches(config, mapping)
    return config


def parse_overrides(text: str) -> list[str]:
    """Split overrides as a shell would: the content of HYDRA_ARGS.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a list of key=value overrides as in HYDRA_ARGS: {error}") from None


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values, to store beside a model."""
    return dataclasses.asdict(config)


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_switches(config: Any, mapping: Mapping[str, Any], where: str = "") -> None:
    """Reject `true` and `false` where pydantic converts them to 1 and 0."""
    for field in dataclasses.fields(config):
        read, given = getattr(config, field.name), mapping.get(field.name)
        if isinstance(given, bool) and isinstance(read, (int, float)) and not isinstance(read, bool):
            raise ConfigError(f"{where}{field.name} must be a number, got {str(given).lower()}")
        if dataclasses.is_dataclass(read) and isinstance(given, Mapping):
            _check_switches(read, given, f"{where}{field.name}.")


def _sentence(error: Mapping[str, Any], mapping: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence for the person who typed the value."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    if error["type"] == "unexpected_keyword_argument":
        *parents, key = error["loc"]
        siblings: Any = mapping
        for part in parents:
            siblings = siblings[part]
        known = ", ".join(sorted(str(each) for each in siblings if each != key))
        return f"{where}: there is no such key; {'.'.join(map(str, parents)) or 'the configuration'} has {known}"
    if error["type"] == "literal_error":
        return f"{where} must be {error['ctx']['expected']}, got {error['input']!r}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _check_overrides(overrides: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            override = None
        if override is None or not override.key_or_group:
            raise ConfigError(f"{text!r} is not a configuration override: write key=value, e.g. training.num_epochs=3")
        key, value = override.key_or_group, override.value()
        if key.split(".")[0].split("/")[0].partition("@")[0] == "hydra":
            raise ConfigError(
                f"{text}: settings of Hydra itself have no effect here; FASHION_HOME=FOLDER says where runs are stored"
            )
        folder = CONFIGS / key
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options and str(value) not in options:
            raise ConfigError(f"{text}: no such option; {key} is one of {', '.join(options)}")


def _with_architecture_of_name(overrides: Sequence[str]) -> list[str]:
    """Let `architecture.name=NAME` select the architecture too, for the values of convnet do not fit other networks."""
    values = dict(override.partition("=")[::2] for override in overrides)
    if "architecture.name" not in values or "architecture" in values:
        return list(overrides)
    file = CONFIGS / "architecture" / f"{values['architecture.name']}.yaml"
    return [f"architecture={file.stem if file.is_file() else 'timm'}", *overrides]


def _explain(overrides: Sequence[str], composed: Any, error: Exception) -> str:
    """Name the wrong override, and what its group holds."""
    for override in overrides:
        *parents, last = override.lstrip("+~").split("=")[0].split(".")
        node = composed
        for depth, part in enumerate([*parents, last]):
            if not isinstance(node, dict) or part not in node:
                where = ".".join([*parents, last][:depth]) or "the configuration"
                allowed = f"; {where} has {', '.join(sorted(node))}" if isinstance(node, dict) else ""
                if not override.startswith("+"):
                    return f"{override}: there is no key {part!r}{allowed}"
                break
            node = node[part]
    return " ".join(str(error).split())
