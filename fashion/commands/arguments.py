"""Arguments that several commands share."""

from collections.abc import Sequence
from typing import Annotated

import typer

from fashion.commands.errors import CommandError, failing_on
from fashion.config.names import MODEL_NAME

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", show_default=False, help="Hydra overrides of the configuration."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _checked_model_name(name: str) -> str:
    from fashion.config.schema import ConfigError, check_model_name

    try:
        check_model_name(name)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    return name


ModelName = Annotated[str, typer.Option("--name", help="Registered model.", callback=_checked_model_name)]
DataSet = Annotated[
    list[str] | None,
    typer.Argument(metavar="data=NAME", show_default=False, help="The data set whose model is meant."),
]


def model_of(overrides: Sequence[str]) -> str:
    """Name of the registered model of a data set.

    Args:
        overrides: `data=NAME`, or `data.root=` with a folder whose pictures were read before; none for the usual one.

    Raises:
        fashion.config.schema.ConfigError: they name no data set.
    """
    if not overrides:
        return MODEL_NAME
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config
    from fashion.data.requested import with_known

    return load_train_config(compose(with_known(overrides))).tracking.registered_model


def chosen_model(name: str, overrides: Sequence[str] | None) -> str:
    """The registered model that a command is about: that of a data set, or else the one of `--name`.

    Args:
        name: of `--name`.
        overrides: as `model_of` takes them.

    Raises:
        CommandError: they name no data set, or another model than `--name`.
    """
    from fashion.config.schema import ConfigError

    if not overrides:
        return name
    with failing_on(ConfigError):
        model = model_of(overrides)
    if name not in (MODEL_NAME, model):
        raise CommandError(f"give either {overrides[0]}, whose model is {model}, or --name {name}")
    return model


def with_version(version: str, overrides: Sequence[str] | None) -> tuple[str, list[str]]:
    """The version and the data set of a command that takes both, and whose version may be left out."""
    left_out = "=" in version
    return ("champion" if left_out else version), [*([version] if left_out else []), *(overrides or [])]
