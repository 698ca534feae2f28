"""Signatures of packages: made and checked by keys as a person makes them, and what happens without the right one."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.keys import key_pair

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.home import REPOSITORY, Home
from fashion.model.package import Package
from fashion.registry import champions, signatures, tracking, versions
from fashion.registry.versions import SIGNATURE, RegistryError, Version

DIGEST = "ab" * 32
Pair = Callable[[str], tuple[Path, Path]]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Make a private and a public key, by the commands that the documentation names."""
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("openssl is missing")

    return partial(key_pair, tmp_path)


@pytest.fixture
def register(mlflow_home: Home, tiny_package: Package) -> Callable[[], Version]:
    """Register the package as a training does."""
    assert tiny_package.folder is not None
    experiment, folder = tracking.get_or_create_experiment(mlflow_home, "fashion"), tiny_package.folder

    def register() -> Version:
        run = tracking.start_run(experiment, "tiny", {})
        return versions.register(versions.log_package(run, folder), run_id=run, tags={})

    return register


def test_a_signature_is_accepted_by_its_key_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (ours, trusted), (_, others) = pair("ours"), pair("others")
    monkeypatch.setenv("FASHION_SIGNING_KEY", str(ours))
    signature = signatures.sign(DIGEST)
    signatures.verify(DIGEST, signature)  # no key is trusted: nothing is asked for
    monkeypatch.setenv("FASHION_TRUSTED_KEYS", str(trusted))
    signatures.verify(DIGEST, signature)
    monkeypatch.setenv("FASHION_TRUSTED_KEYS", others.read_text() + trusted.read_text())  # while a key is replaced
    signatures.verify(DIGEST, signature)
    for digest, given in ((DIGEST[:-1] + "c", signature), (DIGEST, "bm8="), (DIGEST, "not base64!")):
        with pytest.raises(signatures.SignatureError, match="a signature of no key that is trusted here"):
            signatures.verify(digest, given)
    monkeypatch.setenv("FASHION_TRUSTED_KEYS", str(others))
    with pytest.raises(signatures.SignatureError, match="a signature of no key that is trusted here"):
        signatures.verify(DIGEST, signature)
    with pytest.raises(signatures.SignatureError, match="has no signature, and FASHION_TRUSTED_KEYS asks for one"):
        signatures.verify(DIGEST, None)


def test_without_a_key_nothing_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASHION_SIGNING_KEY", raising=False)
    assert signatures.sign(DIGEST) is None


def test_a_key_that_cannot_be_used_is_named_with_how_to_make_one(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = pair("ours")
    rsa, rsa_public = pair("rsa", "-algorithm", "RSA")
    junk = tmp_path / "junk.pem"
    begin, end = (f"-----{word} PRIVATE KEY-----" for word in ("BEGIN", "END"))
    junk.write_text(f"{begin}\nbm8=\n{end}\n")
    wrong = {
        "FASHION_SIGNING_KEY": [(tmp_path / "none.pem", "cannot be read (No such file or directory)"),
                                (junk, "holds no private key"), (public, "holds no private key"),
                                (rsa, "another kind than Ed25519")],
        "FASHION_TRUSTED_KEYS": [(tmp_path, "cannot be read (Is a directory)"), (junk, "holds what is no public key"),
                                 (private, "holds what is no public key"), (rsa_public, "another kind than Ed25519"),
                                 (REPOSITORY / "pyproject.toml", "holds no key")],
    }  # fmt: skip
    for variable, cases in wrong.items():
        for path, reason in cases:
            monkeypatch.setenv(variable, str(path))
            with pytest.raises(signatures.SignatureError) as caught:
                signatures.check_keys()
            assert str(caught.value).startswith(variable)
            assert reason in str(caught.value)
            assert "`openssl genpkey -algorithm ed25519" in str(caught.value)
            assert "\n" not in str(caught.value)
        monkeypatch.delenv(variable)


@pytest.mark.fault("a package is exchanged together with its digests in the registry")
def test_a_package_with_another_signature_is_refused_and_the_champion_stays(
    register: Callable[[], Version], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ours, trusted), (theirs, _) = pair("ours"), pair("theirs")
    monkeypatch.setenv("FASHION_TRUSTED_KEYS", str(trusted))
    monkeypatch.setenv("FASHION_SIGNING_KEY", str(ours))
    champions.promote(register(), reason="first")
    monkeypatch.setenv("FASHION_SIGNING_KEY", str(theirs))
    foreign = register()
    with pytest.raises(RegistryError, match=rf"version {foreign.number}, stored at .*: its package has a signature of"):
        champions.promote(foreign, reason="x")
    champion = versions.champion()
    assert champion is not None
    assert champion.number != foreign.number
    assert versions.fetch(champion, tmp_path / "fetched").digest == champion.tags[versions.DIGEST]


def test_an_earlier_version_is_signed_by_a_command(
    register: Callable[[], Version], pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, trusted = pair("ours")
    version = register()
    assert SIGNATURE not in version.tags
    assert main(["registry", "sign", "1"]) == 1
    assert "error: FASHION_SIGNING_KEY is not set: `openssl genpkey" in capsys.readouterr().err
    monkeypatch.setenv("FASHION_TRUSTED_KEYS", str(trusted))
    assert main(["registry", "promote", "1", "--reason", "x"]) == 1
    assert "its package has no signature, and FASHION_TRUSTED_KEYS asks for one" in capsys.readouterr().err
    monkeypatch.setenv("FASHION_SIGNING_KEY", str(ours))
    assert main(["registry", "sign", "1"]) == 0
    assert capsys.readouterr().out == "signed: version 1\n"
    assert main(["registry", "promote", "1", "--reason", "x"]) == 0
    assert MlflowClient().get_model_version(MODEL_NAME, "1").tags[SIGNATURE]
