"""What a model says of its bento's gallery, for the check that a bento passes before it gets requests."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from bentos.classifier.deployment import LabelledPicture
from bentos.web.known_answers import KnownAnswer
from fashion.images import preparation
from fashion.model.package import Package
from fashion.model.predictor import Predictor


def known_answers(package: Package, gallery: Sequence[LabelledPicture]) -> list[dict[str, str]]:
    """Return `KnownAnswer`s of all pictures, as plain data.

    Args:
        package: of the version that the bento serves.
        gallery: pictures of the bento.
    """
    if not gallery:
        return []
    prepared = [
        preparation.prepare(
            each.png, size=package.size, channels=package.channels, preparation=package.preparation
        ).image
        for each in gallery
    ]
    labels = Predictor(package).predict(np.stack(prepared)).labels
    return [asdict(KnownAnswer(f"{index}.png", package.class_names[label])) for index, label in enumerate(labels)]
