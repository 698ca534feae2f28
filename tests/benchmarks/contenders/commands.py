"""All contenders by name, and the command that starts each as a server.

MLServer and Triton's Python backend are not among them, since neither can be installed beside what the package needs:
MLServer 1.7 asks for FastAPI below 0.116, protobuf below 7 and importlib-resources below 7, and PyTriton for NumPy
below 2.
"""

import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import util
from pathlib import Path

from fashion.home import REPOSITORY
from tests.benchmarks.contenders.asgi import LOG_VARIABLE
from tests.benchmarks.contenders.served_package import PACKAGE_VARIABLE
from tests.benchmarks.load import HOST
from tests.benchmarks.servers import Served, environment, free_port

TORCH = "FastAPI, torch eager"
ONNX = "FastAPI, ONNX Runtime, no log"
BENTOML = "plain BentoML, ONNX Runtime, no log"
LITSERVE = "LitServe, ONNX Runtime, no log"
RAY = "Ray Serve, ONNX Runtime, no log"
ONE_ROW = "no framework, ONNX Runtime, one row committed"
NOTHING = "an endpoint that does nothing"

OPTIONAL = {LITSERVE: "litserve", RAY: "ray"}
"""Contender -> the module that only `make bench` installs."""

_HERE = "tests.benchmarks.contenders"
_UVICORN = ("uvicorn", "--workers", "1", "--no-access-log", "--log-level", "warning", "--host", HOST, "--factory")
_COMMANDS = {
    TORCH: (*_UVICORN, f"{_HERE}.asgi:torch_eager", "--port"),
    ONNX: (*_UVICORN, f"{_HERE}.asgi:onnx_runtime", "--port"),
    BENTOML: ("bentoml", "serve", f"{_HERE}.bentoml_service:Plain", "--host", HOST, "--port"),
    LITSERVE: (f"{_HERE}.litserve_server",),
    RAY: (f"{_HERE}.ray_serve",),
    ONE_ROW: (*_UVICORN, f"{_HERE}.asgi:one_row", "--port"),
    NOTHING: (*_UVICORN, f"{_HERE}.asgi:nothing", "--port"),
}
"""Contender -> module that Python runs, and its arguments; the port is the last."""


def others(folder: Path, package: Path) -> dict[str, Callable[[], Served]]:
    """The contenders that are installed, by name: a server of each.

    Args:
        folder: where they keep their state.
        package: folder of the package that they serve.
    """
    settings = environment(folder) | {
        PACKAGE_VARIABLE: str(package),
        LOG_VARIABLE: str(folder / "one_row.db"),
        "PYTHONPATH": str(REPOSITORY),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its processes listen on the loopback alone, as they do on macOS
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # without one, Ray leaves one in the user's folder
    }
    missing = not_installed()
    return {name: partial(_serve, name, folder, settings) for name in _COMMANDS if name not in missing}


def not_installed() -> list[str]:
    """The contenders whose framework is missing."""
    return [name for name, module in OPTIONAL.items() if util.find_spec(module) is None]


def _serve(name: str, folder: Path, settings: Mapping[str, str]) -> Served:
    port = free_port()
    log = folder / f"{name.partition(',')[0].replace(' ', '_')}.log"
    return Served([sys.executable, "-m", *_COMMANDS[name], str(port)], settings, port, log)
