"""What a training takes in: servers, the champion, data, feedback of users, the network. Checked, or one sentence."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fashion.config.train import TrainConfig, is_shipped
from fashion.home import Home, current_home
from fashion.storage.blobs import StoreUnavailable
from fashion.storage.servers import ServerUnavailable
from runtime import events, launch

if TYPE_CHECKING:
    from fashion.data.dataset import Dataset
    from fashion.data.manifest import Manifest
    from fashion.predictions.labelled import LabelledFeedback


def check_servers(settings: TrainConfig, home: Home) -> None:
    """Reach what later steps write to, or end the task: hours of training would be lost on a wrong address."""
    from fashion.registry import signatures
    from fashion.storage.address import open_store
    from fashion.storage.servers import check_database

    launch.connect(home)
    with launch.exit_on(ServerUnavailable, StoreUnavailable, ValueError):
        signatures.check_keys()
        if settings.tuning.enabled and "://" in home.studies:
            check_database(home.studies, variable="FASHION_STUDIES")
        open_store(home.checkpoints).exists("any")


def check_champion(settings: TrainConfig) -> None:
    """Fetch what the gate will compare the new model with, or end the task: a model could not be judged without it."""
    from fashion.model.package import DamagedPackage
    from fashion.registry import champions
    from fashion.registry.versions import RegistryError

    name = settings.tracking.registered_model
    with launch.exit_on(DamagedPackage, RegistryError, ServerUnavailable), tempfile.TemporaryDirectory() as folder:
        champion = champions.settle(name).last()
        if champion is not None and settings.gate.champion == "compare":
            champions.fetch_to_compare(champion, Path(folder), name=name)


def load_data(settings: TrainConfig, version: "Manifest") -> "Dataset":
    """One version of the data set, fetched where this machine does not have it yet.

    Args:
        settings: its sources, and how it is split.
        version: what `start` read. The file may have been changed since, as by `fashion data add`.
    """
    from fashion.data.loading import load_dataset
    from fashion.data.manifest import DataError

    with launch.exit_on(DataError):
        return load_dataset(settings.data, current_home().data, version=version)


def load_training_data(settings: TrainConfig, version: "Manifest", feedback: "LabelledFeedback | None") -> "Dataset":
    """The data set with labelled feedback among its training rows. Its other splits, mean and std stay as they are."""
    from fashion.predictions.labelled import with_feedback

    data = load_data(settings, version)
    if feedback is None:
        return data
    return dataclasses.replace(data, train=with_feedback(data.train, feedback.train, settings.feedback.repeat))


def collect_feedback(settings: TrainConfig, data: "Dataset") -> "LabelledFeedback | None":
    """Labelled pictures of users, if the configuration or the event that started this run wants them."""
    if not (settings.feedback.use or events.was_started_by(events.RETRAIN)):
        return None
    from fashion.drift import belief
    from fashion.drift.references import References
    from fashion.images import image_store
    from fashion.model.package import DamagedPackage
    from fashion.predictions import labelled, windows
    from fashion.predictions.record import LogUnavailable
    from fashion.registry.versions import RegistryError
    from fashion.storage.address import open_store

    home, model = current_home(), settings.tracking.registered_model
    known = {
        image_store.digest(image): int(label)
        for split in data.splits.values()
        for image, label in zip(split.images, split.labels, strict=True)
    }
    expected = (LogUnavailable, StoreUnavailable, DamagedPackage, RegistryError, labelled.NothingToLearn)
    with launch.exit_on(*expected), tempfile.TemporaryDirectory() as folder:
        source, references = windows.open_source(home), References(model, Path(folder))
        trust = belief.assess(source, references, known=known)
        remarks = belief.quarantine(source, trust, may_release=True)
        print(*remarks, sep="\n")
        rolled_back = settings.feedback.rolled_back
        believed = belief.believe(trust, source, model_name=model, rolled_back=rolled_back)
        images = open_store(home.images)
        collected = labelled.collect(
            source.labelled(), images, settings.data, data, settings.feedback, model_name=model, believed=believed
        )
        return labelled.require_something(collected, remarks)


def check_network(settings: TrainConfig) -> None:
    """Build and export the configured network, unless it is one of configs/architecture.

    Raises:
        ConfigError: there is no network of the configured name, or it cannot be built for this data, or exported.
    """
    if not is_shipped(settings.architecture):
        from fashion.training import export, models

        data, shape = settings.data, {"channels": settings.data.channels, "size": settings.data.size}
        network = models.build(settings.architecture, num_classes=len(data.class_names), **shape)
        export.check(network, **shape)
