"""What is used of other packages that they do not document: a new version that changes it fails here."""

import ast
import inspect
from pathlib import Path

import _bentoml_sdk
import click
import uvicorn
from _bentoml_impl.worker import service as worker

from fashion.home import REPOSITORY

PRIVATE = {
    ("bentos/classifier/service.py", "_bentoml_sdk"): "Service",
    ("bentos/serving/worker.py", "_bentoml_impl.worker.service"): "main",
    ("fashion/registry/cleanup.py", "mlflow.tracking._tracking_service.utils"): "_get_store",
    ("flows/runtime/metaflow_patches.py", "metaflow._vendor.click.exceptions"): "UsageError",
}
"""File and module -> the name that is imported."""


def imports() -> dict[tuple[str, str], str]:
    """All imports of modules whose name begins with an underscore or has a part that does."""
    found = {}
    for file in (each for room in ("bentos", "fashion", "flows") for each in Path(REPOSITORY, room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and any(
                part.startswith("_") for part in (node.module or "").split(".")
            ):
                key = str(file.relative_to(REPOSITORY)), node.module or ""
                if node.module != "__future__":
                    found[key] = ", ".join(alias.name for alias in node.names)
    return found


def test_no_other_private_module_is_imported() -> None:
    assert imports() == PRIVATE


def test_each_import_says_why() -> None:
    for (file, module), name in PRIVATE.items():
        lines = Path(REPOSITORY, file).read_text().splitlines()
        (at,) = (number for number, line in enumerate(lines) if f"from {module} import {name}" in line)
        assert "#" in lines[at] or lines[at - 1].lstrip().startswith("#"), f"{file}: {lines[at]}"


def test_a_service_hands_its_application_out() -> None:
    assert list(inspect.signature(_bentoml_sdk.Service.to_asgi).parameters) == ["self", "is_main"]
    assert "service_class" in inspect.signature(_bentoml_sdk.service).parameters


def test_a_worker_is_a_command_that_takes_a_socket() -> None:
    assert isinstance(worker.main, click.Command)
    assert {"bento_identifier", "fd", "worker_id"} <= {parameter.name for parameter in worker.main.params}


def test_a_server_starts_in_a_method_of_its_own() -> None:
    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    assert inspect.iscoroutinefunction(uvicorn.Server.startup)
