"""What the classifier's bento holds beside its code: which versions it serves and how, and a gallery of pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bentos.classifier.schemas import GalleryPicture
from bentos.web.known_answers import DEPLOYMENT, GALLERY
from fashion.config.serve import ServiceConfig
from fashion.state import record

GALLERY_LIST = "gallery.json"
KNOWN_PICTURES = "known_pictures.npz"
"""In the bento's folder; not in one of those that the service answers files of."""


@dataclass(frozen=True)
class Deployment:
    """Which versions a bento serves, and how."""

    settings: ServiceConfig
    model: Mapping[str, Any]
    """name, version, tag in BentoML's model store, summary, lineage."""
    shadow: Mapping[str, Any] | None
    """The same of the version that scores every picture too, without answering; None without one."""
    canary: Mapping[str, Any] | None = None
    """The same of the version that answers a share of the clients, `experiment`, the rules of its comparison, and
    `sure_wrong`, as of `served.Canary`."""


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of the gallery."""

    label: str
    png: bytes


def bento_files(
    deployment: Mapping[str, Any], gallery: Sequence[LabelledPicture], known: bytes | None = None
) -> dict[str, bytes]:
    """Return the files to put into the bento, by their path in its folder.

    Args:
        deployment: the fields of `Deployment`, as plain data.
        gallery: pictures for the page.
        known: of `KnownPictures.to_npz`; None for none.
    """
    pictures = [GalleryPicture(f"/gallery/{index}.png", each.label) for index, each in enumerate(gallery)]
    return {
        DEPLOYMENT: (json.dumps(deployment, indent=1) + "\n").encode(),
        f"{GALLERY}/{GALLERY_LIST}": json.dumps([asdict(picture) for picture in pictures]).encode(),
        **{f"{GALLERY}/{index}.png": each.png for index, each in enumerate(gallery)},
        **({} if known is None else {KNOWN_PICTURES: known}),
    }


def state_folder(environment: Mapping[str, str]) -> str:
    """Return the folder of the service's state: a bento names none, since it is served on other machines too.

    Args:
        environment: FASHION_HOME, or the home whose store of bentos BENTOML_HOME is, or a folder in that store.
    """
    if environment.get("FASHION_HOME"):
        return environment["FASHION_HOME"]
    bentos = Path(environment.get("BENTOML_HOME") or Path.home() / "bentoml").absolute()
    return str(bentos.parent if (bentos.parent / record.FILE).exists() else bentos / "var")


def read_gallery(folder: Path) -> tuple[GalleryPicture, ...]:
    """Read the list of a gallery; empty without one."""
    try:
        return tuple(GalleryPicture(**picture) for picture in json.loads((folder / GALLERY_LIST).read_bytes()))
    except FileNotFoundError:
        return ()
