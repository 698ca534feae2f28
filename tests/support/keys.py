"""Pairs of keys as openssl makes them."""

import subprocess
from pathlib import Path


def key_pair(folder: Path, name: str, *kind: str) -> tuple[Path, Path]:
    """Files with a private and a public key in PEM.

    Args:
        folder: for the files.
        name: of the pair.
        kind: options of `openssl genpkey`; Ed25519 by default.
    """
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    kind = kind or ("-algorithm", "ed25519")
    subprocess.run(["openssl", "genpkey", *kind, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public
