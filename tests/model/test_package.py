"""A package is read as it was written, or refused with the name of what is damaged."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion.model import package
from fashion.model.package import FILES, MANIFEST, MODEL, REFERENCE, WEIGHTS, DamagedPackage, Metric, Package


@pytest.fixture
def copy(tiny_package: Package, tmp_path: Path) -> Path:
    """A package to damage."""
    assert tiny_package.folder is not None
    return Path(shutil.copytree(tiny_package.folder, tmp_path / "package"))


def change(folder: Path, **fields: object) -> None:
    """Overwrite fields of the manifest."""
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, **fields}))


def test_a_package_is_read_as_it_was_written(tiny_package: Package) -> None:
    assert tiny_package.folder is not None
    assert package.read(tiny_package.folder) == tiny_package


def test_a_package_needs_nothing_but_its_folder(tiny_package: Package, copy: Path) -> None:
    moved = package.read(copy)
    assert moved.folder == copy
    assert dataclasses.replace(moved, folder=tiny_package.folder) == tiny_package
    assert {path.name for path in copy.iterdir()} == {MANIFEST, *FILES}
    assert "folder" not in json.loads((copy / MANIFEST).read_text())


def test_a_package_without_a_preparation_prepares_product_photos(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    assert content.pop("preparation") == "product_photo"
    (copy / MANIFEST).write_text(json.dumps(content))
    assert package.read(copy).preparation == "product_photo"


def test_thresholds_and_intervals_may_be_missing(tiny_package: Package, tmp_path: Path) -> None:
    bare = dataclasses.replace(tiny_package, severity=None, metrics={"test/accuracy": Metric(0.5)})
    written = package.write(bare, tmp_path, {MODEL: b"1", WEIGHTS: b"2", REFERENCE: b"3"})
    assert package.read(tmp_path) == written
    assert written == dataclasses.replace(bare, folder=tmp_path, digest=written.digest)
    assert written.digest == hashlib.sha256((tmp_path / MANIFEST).read_bytes()).hexdigest()


def test_a_package_written_over_another_replaces_it(tiny_package: Package, copy: Path) -> None:
    files = {name: (copy / name).read_bytes() for name in (WEIGHTS, REFERENCE)} | {MODEL: b"another"}
    package.write(dataclasses.replace(tiny_package, temperature=2.0), copy, files)
    assert package.read(copy).temperature == 2.0
    assert (copy / MODEL).read_bytes() == b"another"


@pytest.mark.parametrize("names", [[MODEL, WEIGHTS], [MODEL, WEIGHTS, REFERENCE, "notes.txt"], []])
def test_a_package_is_not_written_with_other_files(names: list[str], tiny_package: Package, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^a package has {', '.join(FILES)}, got "):
        package.write(tiny_package, tmp_path, dict.fromkeys(names, b""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("file missing in a package")
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(DamagedPackage, match=f"{copy} is damaged: {name} is missing$"):
        package.read(copy)


@pytest.mark.fault("one byte changed in a package")
@pytest.mark.parametrize("name", [MODEL, REFERENCE])
@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_byte_is_found_and_its_file_named(name: str, place: int, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[place] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DamagedPackage, match=f"{copy} is damaged: {name} differs from what was packed$"):
        package.read(copy)


@pytest.mark.fault("shortened file in a package")
def test_a_shortened_file_is_found(copy: Path) -> None:
    (copy / MODEL).write_bytes((copy / MODEL).read_bytes()[:-1])
    with pytest.raises(DamagedPackage, match=f"{MODEL} differs"):
        package.read(copy)


def _without_checksums(folder: Path) -> None:
    change(folder, files=None)


def _without_one_checksum(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    del content["files"][REFERENCE]
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.mark.fault("damaged manifest of a package")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), f"is not a model package: it has no {MANIFEST}$"),
        (lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-20]), "cannot be read: "),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), "cannot be read: "),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "does not describe a model package$"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "does not describe a model package$"),
        (lambda folder: change(folder, format=2, files=[]), "has format 2; this version of fashion reads format 1$"),
        (_without_checksums, "is damaged: it holds no checksums$"),
        (_without_one_checksum, f"{REFERENCE} differs from what was packed$"),
        (lambda folder: change(folder, temperature="warm"), r"is damaged: \('temperature',\) is wrong$"),
        (lambda folder: change(folder, severity={"window": 3}), r"is damaged: \('severity', .* is wrong$"),
    ],
)
def test_a_damaged_manifest_is_described(damage: Callable[[Path], object], message: str, copy: Path) -> None:
    damage(copy)
    with pytest.raises(DamagedPackage, match=message):
        package.read(copy)


def test_a_missing_folder_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(DamagedPackage, match=f"{path} is not a model package"):
            package.read(path)
