"""A version that answers, and what its answers need: the served one, and a canary beside it. Knows no requests."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bentos.classifier.batcher import CanaryAnswering
from bentos.classifier.canary_watch import CanaryWatch
from bentos.classifier.covering import Covering
from bentos.classifier.deployment import Deployment
from bentos.classifier.schemas import ModelVersion
from bentos.classifier.unlike import Unlike
from fashion.config.serve import ServiceConfig
from fashion.model import package
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.canary import Experiment
from fashion.predictions.record import ModelId

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Served:
    """One version, ready to answer."""

    package: Package
    version: ModelVersion
    model: ModelId
    """What its records name."""
    predictor: Predictor
    unlike: Unlike
    covering: Covering

    @classmethod
    def load(cls, of: Package, name: str, version: str | int, settings: ServiceConfig) -> "Served":
        """Load the network, and call it once: the first call is the slowest.

        Args:
            of: its package.
            name: of the registered model.
            version: its number.
            settings: what its answers say beside the class.

        Raises:
            fashion.model.package.DamagedPackage: a file of the package cannot be read.
        """
        predictor = Predictor(of)
        predictor.predict(_blank_image(of))
        return cls(
            of,
            ModelVersion(name, str(version), of.digest),
            ModelId.of(name, version, of.digest),
            predictor,
            Unlike(of, settings),
            Covering(of, settings),
        )


@dataclass(frozen=True, eq=False)
class Canary:
    """A version that answers a share of the clients."""

    served: Served
    experiment: Experiment
    sure_wrong: tuple[float, float]
    """Share of sure answers on held-out pictures that are wrong, of the champion and of it: its labels are checked by
    what the two are sure of. DeployFlow knows it: the service's image cannot read the held-out answers."""

    def answering(self, watch: CanaryWatch) -> CanaryAnswering:
        """What the batcher needs of it.

        Args:
            watch: knows whether it still answers.
        """
        served, experiment = self.served, self.experiment

        def is_asked(client: str | None, image_sha256: str) -> bool:
            return watch.answers and experiment.goes_to_canary(client, image_sha256)

        return CanaryAnswering(served.predictor, served.model, served.unlike.typicality, is_asked)


def read_verified(folder: Path, described: Mapping[str, Any]) -> Package:
    """Read the package of a version that a bento names.

    Args:
        folder: the package.
        described: what `Deployment` says of the version; bentos of older versions lack its digest.

    Raises:
        fashion.model.package.DamagedPackage: its files are missing or damaged, or are those of another package.
    """
    found = package.read(folder)
    if found.digest != described.get("digest", found.digest):
        raise package.DamagedPackage(f"{folder} is another package than the one that the bento was built of")
    return found


def load_canary(deployment: Deployment, folder: Path | None, champion: Package) -> Canary | None:
    """Load the canary of a bento; None where there is none, or where it cannot answer: then the champion answers all.

    Args:
        deployment: names it, and the rules of its comparison.
        folder: its package.
        champion: what it must have the classes and the image size of.
    """
    described = deployment.canary
    if described is None or folder is None:
        return None
    number = described["version"]
    try:
        found = read_verified(folder, described)
        package.require_comparable(champion, found)
        served = Served.load(found, described["name"], number, deployment.settings)
        champions, canarys = described["sure_wrong"]
        return Canary(served, Experiment.of(described["experiment"]), (champions, canarys))
    except Exception as error:  # whatever is wrong with a version on trial, the other one answers
        _logger.error("the canary, version %s, answers nobody, and the champion everybody: %s", number, error)
        return None


def _blank_image(of: Package) -> NDArray[np.uint8]:
    return np.zeros((1, of.size, of.size) + ((of.channels,) if of.channels > 1 else ()), np.uint8)
