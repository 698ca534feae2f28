"""Files that describe Google Cloud's monitoring resources. Knows their kinds and order; connects to nothing.

A file's name begins with its kind, and its content is the resource as its API takes it. `${name}` in it is a value, or,
where `name` is another file's, the resource name that the API gave to what that file describes.
"""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from fashion.home import REPOSITORY

FOLDER = REPOSITORY / "configs" / "deploy" / "monitoring"

Kind = Literal["channel", "service", "slo", "alert", "budget"]
KINDS: tuple[Kind, ...] = ("channel", "service", "slo", "alert", "budget")
"""In the order in which they can be made: each may name the ones before."""


class WrongFile(ValueError):
    """A file does not describe a resource. The message names the file and what is wrong."""


@dataclass(frozen=True)
class ResourceFile:
    """One file."""

    name: str
    """Of the file, without `.yaml`."""
    kind: Kind
    text: str
    """YAML with placeholders."""

    def fill(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the resource.

        Args:
            values: of the placeholders, by name.

        Raises:
            WrongFile: a placeholder has no value, or the text is not a YAML mapping.
        """
        template = string.Template(self.text)
        if not template.is_valid():
            raise WrongFile(
                f"{self.name}.yaml has a `$` that begins no placeholder such as ${{project}}; write $$ for $"
            )
        missing = sorted(set(template.get_identifiers()) - set(values))
        if missing:
            raise WrongFile(
                f"{self.name}.yaml needs a value for {', '.join(missing)}; it has {', '.join(sorted(values))}"
            )
        try:
            body = yaml.safe_load(template.substitute(values))
        except yaml.YAMLError as error:
            raise WrongFile(f"{self.name}.yaml is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(body, dict):
            raise WrongFile(f"{self.name}.yaml must describe one resource, as `key: value` lines")
        return body


def read_files(folder: Path = FOLDER) -> list[ResourceFile]:
    """Read the files of a folder, in the order in which their resources can be made.

    Raises:
        WrongFile: a file's name begins with no kind, or there is no file.
    """
    files = sorted(_files(folder), key=lambda each: KINDS.index(each.kind))
    if not files:
        raise WrongFile(f"{folder} holds no .yaml file")
    return files


def _files(folder: Path) -> Iterator[ResourceFile]:
    for path in sorted(folder.glob("*.yaml")):
        kind = next((kind for kind in KINDS if path.stem.split("_")[0] == kind), None)
        if kind is None:
            raise WrongFile(f"{path} must begin with the kind of its resource: {', '.join(KINDS)}")
        yield ResourceFile(path.stem, kind, path.read_text())
