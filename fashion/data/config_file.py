"""The file in configs/data/ that describes a data set: find it, and write it for people to keep. Knows no pictures."""

import dataclasses
import re
import unicodedata
from pathlib import Path
from typing import Any

from fashion.config.compose import CONFIGS
from fashion.config.schema import DataConfig
from fashion.data.manifest import DataError
from fashion.home import REPOSITORY
from fashion.storage.folder import write_atomically

FOLDER = CONFIGS / "data"
HEAD = """\
# {count:,} pictures of {classes} classes from {root}
# Written by `data.root=`, and yours to keep and to change. When the pictures are read again, root, val_fraction,
# class_names and comments are written anew (names that you give to the classes of IDX files stay); all else is kept.
# Each key is explained in fashion/config/schema.py.
"""
SOURCES = """\
sources: # tried in order; `fashion data push` uploads the files of a version to the bucket
  - {kind: bucket, address: "${oc.env:FASHION_DATA_BUCKET,''}"} # gs://, s3:// or az://
"""
NUMBER = re.compile(r"[-+]?[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+$")


def slug(text: str) -> str:
    """A name of small ASCII letters, digits and `_` for a data set; `pictures` where nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().casefold()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:40] or "pictures"


def path_of(name: str) -> Path:
    """Where the file of a data set is, or would be."""
    return FOLDER / f"{name}.yaml"


def manifest_of(name: str) -> str:
    """Path of a new data set's manifest as its config names it: relative to the repository if it is in it."""
    path = FOLDER / f"{name}.manifest.json"
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def values_of(path: Path) -> dict[str, Any]:
    """What a data config says, before it is composed.

    Raises:
        DataError: the file is not YAML.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from None
    return content if isinstance(content, dict) else {}


def of_root(root: str) -> str | None:
    """Name of the data config whose pictures are from a root; None if there is none."""
    for path in sorted(FOLDER.glob("*.yaml")):
        if values_of(path).get("root") == root:
            return path.stem
    return None


def check_manifest(data: DataConfig, name: str | None) -> None:
    """Reject a config whose manifest is another config's too: a data version would be written over the other's.

    Args:
        data: the config that a version is to be written for.
        name: of its file, without the ending; None where it is in no file.

    Raises:
        DataError: another file names the same manifest.
    """
    own = (REPOSITORY / data.manifest).resolve()
    for path in sorted(FOLDER.glob("*.yaml")):
        other = values_of(path)
        is_same = path.stem == name or (name is None and other.get("name") == data.name)
        if not is_same and isinstance(other.get("manifest"), str) and (REPOSITORY / other["manifest"]).resolve() == own:
            raise DataError(
                f"{data.manifest} is the manifest of {path.name}, and would be replaced: set name and manifest of your "
                f"own data config, as manifest: configs/data/{name or 'mine'}.manifest.json"
            )


def write(path: Path, data: DataConfig, *, count: int) -> None:
    """Write a data config; the sources of a file that it replaces are kept.

    Args:
        path: of the file.
        data: what it says.
        count: number of pictures, for the comment at its top.
    """
    fields = {key: value for key, value in dataclasses.asdict(data).items() if key not in ("sources", "published")}
    body = _to_yaml(_plain(fields))
    head = HEAD.format(count=count, classes=len(data.class_names), root=data.root)
    kept = values_of(path).get("sources") if path.exists() else None
    sources = SOURCES if kept is None else _to_yaml({"sources": kept})
    write_atomically(path, f"{head}{body}{sources}".encode())


def _to_yaml(values: dict[str, Any]) -> str:
    """YAML that OmegaConf reads back alike: without quotes, `1e3` is a number to it and a string to PyYAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
