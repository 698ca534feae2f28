"""Arguments that several commands share."""

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", show_default=False, help="Hydra overrides of the configuration."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ModelName = Annotated[str, typer.Option("--name", help="Registered model.")]
MODEL_NAME = "fashion-classifier"
"""As `fashion.registry.versions.MODEL_NAME`, which costs an import of MLflow."""
