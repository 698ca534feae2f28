"""Arguments that several commands share."""

from collections.abc import Sequence
from typing import Annotated

import typer

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
MODEL_NAME = "fashion-classifier"
"""As `fashion.registry.versions.MODEL_NAME`, which costs an import of MLflow."""


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
