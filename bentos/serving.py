"""`python -m bentos.serving`: serve the latest bento of this machine's store, on loopback unless told otherwise."""

import argparse
import os
import sys
from collections.abc import Sequence

from bentos.building import NAME
from fashion import home


def main(arguments: Sequence[str] | None = None) -> int:
    """Become BentoML's server. Returns only when there is nothing to serve."""
    parser = argparse.ArgumentParser(prog="python -m bentos.serving", description="Serve the classifier.")
    parser.add_argument("--bento", default=f"{NAME}:latest", help="tag of the bento; the latest if not said")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; only this machine sees the default")
    parser.add_argument("--port", type=int, default=3000)
    options = parser.parse_args(arguments)
    address = home.prepare_environment()
    from bentoml.bentos import get
    from bentoml.exceptions import BentoMLException

    try:
        tag = str(get(options.bento).tag)
    except BentoMLException:
        print(f"error: there is no bento {options.bento} in {address.bentos}: run `make bento` first", file=sys.stderr)
        return 1
    print(f"{tag} on http://{options.host}:{options.port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", options.host, "--port", str(options.port)]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main())
