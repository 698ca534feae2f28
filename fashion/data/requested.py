"""Find `data.root=PATH` among configuration overrides, and put the data config of those pictures in its place."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fashion.config.schema import ConfigError
from fashion.data import adoption, config_file
from fashion.data.adoption import AdoptedData, Request

KEYS = {f"data.{field.name}": field.name for field in dataclasses.fields(Request)}
"""Overrides that say how pictures are read, and not how a version that was made is used."""


def split_request(overrides: Sequence[str], *, named: bool = False) -> tuple[Request | None, list[str]]:
    """Divide overrides into what is asked of somebody's pictures, and the others; None without `data.root`.

    Args:
        overrides: of the configuration.
        named: True where `data=NAME` may be among them too.

    Raises:
        ConfigError: a value is of the wrong type.
    """
    values = dict(override.partition("=")[::2] for override in overrides)
    if "data.root" not in values:
        return None, list(overrides)
    if "data" in values and not named:
        raise ConfigError(f"give either data={values['data']} or data.root={values['data.root']}: one names a data set")
    asked: dict[str, Any] = {}
    others = []
    for override in overrides:
        key, _, text = override.partition("=")
        if key in KEYS:
            asked[KEYS[key]] = _value(key, text)
        else:
            others.append(override)
    if asked["root"] is None:
        raise ConfigError("data.root must name a folder, a table, an archive or the address of a bucket, got null")
    return Request(**asked), others


def check_described(overrides: Sequence[str]) -> None:
    """Reject overrides that say how a data config is used, without saying which: the default would be replaced.

    Args:
        overrides: those that are not of the reading.

    Raises:
        ConfigError: neither a data config nor a manifest is named.
    """
    if not any(override.startswith(("data=", "data.manifest=")) for override in overrides):
        raise ConfigError(
            f"{overrides[0]} says nothing on how pictures are read, and no data config is named that it belongs to: "
            "add data=NAME, or leave it out"
        )


def known_name(root: str) -> str:
    """The data config of pictures that were read before: by the path, or by its own name.

    Raises:
        ConfigError: there is none.
    """
    name = config_file.of_root(adoption.absolute(root))
    if name is None and config_file.slug(root) == root and config_file.path_of(root).is_file():
        name = root
    if name is None:
        raise ConfigError(f"data.root={root}: no model was trained on these pictures; `make train DATA={root}` does it")
    return name


def with_adopted(overrides: Sequence[str], cache: Path) -> tuple[list[str], AdoptedData | None]:
    """Read the pictures that `data.root` names, and return the overrides with `data=NAME` in its place.

    Args:
        overrides: of a training.
        cache: folder that holds the files of all versions.

    Raises:
        ConfigError: a value is not allowed.
        fashion.data.manifest.DataError: the pictures cannot be used.
        OSError: a file cannot be written.
    """
    request, others = split_request(overrides)
    if request is None:
        return others, None
    if not Path(request.root).expanduser().exists() and config_file.slug(request.root) == request.root:
        return _named(request, overrides, others), None
    adopted = adoption.adopt(request, cache)
    return [f"data={adopted.name}", *others], adopted


def with_known(overrides: Sequence[str]) -> list[str]:
    """The overrides with `data=NAME` in the place of `data.root`, whose pictures were read before.

    Raises:
        ConfigError: they were not.
    """
    request, others = split_request(overrides)
    return others if request is None else _named(request, overrides, others)


def _named(request: Request, overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    """The others with the data config of pictures that are not read again, so that wishes for it come too late."""
    name = known_name(request.root)
    late = [
        override
        for override in overrides
        if override.partition("=")[0] in {*KEYS} - {"data.root"} and override != f"data.name={name}"
    ]
    if late:
        path = config_file.path_of(name)
        root = config_file.values_of(path).get("root") or "PATH"
        raise ConfigError(
            f"{', '.join(late)} would change nothing, as the pictures of {path} are not read again here: "
            f"`make train DATA={root}` reads them, and takes it in ARGS"
        )
    return [f"data={name}", *others]


def _value(key: str, text: str) -> Any:
    """A value as the field of Request has it; paths are taken as they are, quotes around them apart."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    kinds: dict[str, Any] = {"size": int, "channels": int, "split_seed": int, "val_fraction": float}
    kind = kinds.get(KEYS[key], float if key == "data.test_fraction" else str)
    if key == "data.mirrored":
        if text.casefold() not in ("true", "false"):
            raise ConfigError(f"{key} must be true or false, got {text!r}")
        return text.casefold() == "true"
    if text.casefold() == "null":
        return None
    try:
        value = kind(text)
    except ValueError:
        raise ConfigError(f"{key} must be a number, got {text!r}") from None
    if key in ("data.val_fraction", "data.test_fraction") and not 0 < value < 0.9:
        raise ConfigError(f"{key} must be in (0, 0.9), got {text}")
    if not text:
        raise ConfigError(f"{key} must not be empty")
    return value
