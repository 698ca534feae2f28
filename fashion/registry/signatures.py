"""Signatures of model packages, by keys of this environment. Optional. Knows no registry.

The registry's digest shows that files are those that were registered. A signature also shows who registered them: a
person who can write to MLflow and to its artifacts, but has no key, cannot have a model served.
"""

import base64
import binascii
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNING_KEY = "FASHION_SIGNING_KEY"
"""Variable: a private Ed25519 key in PEM, or the path of a file with one. Packages are signed when it is set."""
TRUSTED_KEYS = "FASHION_TRUSTED_KEYS"
"""Variable: public Ed25519 keys in PEM, or the path of a file with them. Other packages are refused when it is set."""
REMEDY = (
    "`openssl genpkey -algorithm ed25519 -out signing.pem; openssl pkey -in signing.pem -pubout -out trusted.pem` make "
    f"a pair for {SIGNING_KEY} and {TRUSTED_KEYS}"
)
BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)


class SignatureError(ValueError):
    """A key cannot be used, or a package is not signed by a trusted one. The message names the remedy."""


def sign(digest: str) -> str | None:
    """Return the signature of a package's digest in base64; None where no key is set.

    Args:
        digest: sha256 of `package.json`, in hexadecimal.

    Raises:
        SignatureError: the key cannot be used.
    """
    if not os.environ.get(SIGNING_KEY):
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = pem_of(SIGNING_KEY)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise SignatureError(f"{SIGNING_KEY} holds no private key without a password: {REMEDY}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{SIGNING_KEY} holds a key of another kind than Ed25519: {REMEDY}")
    return base64.b64encode(key.sign(digest.encode())).decode()


def verify(digest: str, signature: str | None) -> None:
    """Check the signature of a package's digest, where trusted keys are set.

    Args:
        digest: sha256 of `package.json`, in hexadecimal.
        signature: what `sign` returned; None for a package that was not signed.

    Raises:
        SignatureError: no trusted key has made it, or a key cannot be used.
    """
    if not os.environ.get(TRUSTED_KEYS):
        return
    from cryptography.exceptions import InvalidSignature

    for key in _trusted():
        try:
            key.verify(base64.b64decode(signature or "", validate=True), digest.encode())
        except (InvalidSignature, binascii.Error):
            continue
        return
    what = "has no signature" if signature is None else "has a signature of no key that is trusted here"
    raise SignatureError(
        f"its package {what}, and {TRUSTED_KEYS} asks for one: look where it is from; `fashion registry sign` signs "
        f"it, with the key in {SIGNING_KEY}"
    )


def check_keys() -> None:
    """Check that the keys that are set can be used.

    Raises:
        SignatureError: one cannot.
    """
    sign("")
    if os.environ.get(TRUSTED_KEYS):
        _trusted()


def _trusted() -> "list[Ed25519PublicKey]":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    blocks = BLOCK.findall(pem_of(TRUSTED_KEYS))
    try:
        keys = [load_pem_public_key(block) for block in blocks]
    except ValueError:
        raise SignatureError(f"{TRUSTED_KEYS} holds what is no public key: {REMEDY}") from None
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise SignatureError(f"{TRUSTED_KEYS} holds no key, or one of another kind than Ed25519: {REMEDY}")
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]


def pem_of(variable: str) -> bytes:
    """Return the keys of a variable that is set, in PEM.

    Raises:
        SignatureError: it names a file that cannot be read.
    """
    text = os.environ[variable]
    if "-----BEGIN " in text:
        return text.encode()
    try:
        return Path(text).expanduser().read_bytes()
    except OSError as error:
        raise SignatureError(f"{variable}={text} cannot be read ({error.strerror}): {REMEDY}") from None
