"""Build a bento of a registered version, of the champion by default, and roll it out where a target is set.

python flows/deploy_flow.py run
python flows/deploy_flow.py run version=7 serve.shadow=challenger
python flows/deploy_flow.py run serve.canary=challenger serve.canary_share=0.1
python flows/deploy_flow.py run deploy.target=cloudrun deploy.project=P deploy.region=R deploy.image=I@sha256:...
"""

from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow import Config, FlowSpec, Parameter, card, current, package_sources, project, retry, step
from runtime import cards, events, launch, pods

from fashion.config.compose import as_dict
from fashion.config.schema import ConfigError
from fashion.config.serve import ServeConfig, bento_name
from fashion.storage.blobs import StoreUnavailable
from fashion.storage.servers import ServerUnavailable

if TYPE_CHECKING:
    from bentos.classifier.deployment import LabelledPicture
    from fashion.data.dataset import Dataset
    from fashion.deployment.rollout import Outcome
    from fashion.model.package import Package
    from fashion.registry.versions import Version

UNAVAILABLE = (ServerUnavailable, StoreUnavailable)


@project(name=events.PROJECT)
@events.start_on(events.DEPLOY, ["overrides"])
@pods.Pods
@package_sources(
    [*[(f"../{name}", name) for name in ("fashion", "bentos", "configs", "requirements-serve.lock", "README.md")]],
    suffixes=[".py", ".yaml", ".json", ".html", ".css", ".js", ".svg", ".template", ".lock", ".md"],
)
class DeployFlow(FlowSpec):
    """Registry -> BentoML's model store -> bento -> revision of the service."""

    config = Config(
        "config",
        default_value=launch.overrides_from_environment,
        parser=functools.partial(launch.parse_config, kind=ServeConfig),
        help="configuration overrides, e.g. 'version=7 serve.shadow=challenger'",
    )
    overrides = Parameter("overrides", default="", help="further overrides of this run of a deployed flow")

    @property
    def settings(self) -> ServeConfig:
        """The configuration of this run."""
        return launch.stored_config(ServeConfig, self.configuration)

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self) -> None:
        """Find the versions, verify their packages, and put them into the model store."""
        from fashion.model import package
        from fashion.registry import champions, versions

        with launch.exit_on(ConfigError):
            self.configuration = launch.with_overrides(self.config.to_dict(), self.overrides, kind=ServeConfig)
        settings = self.settings
        launch.connect(prepare_environment())
        name = settings.tracking.registered_model
        with (
            launch.exit_on(*UNAVAILABLE, versions.RegistryError, package.DamagedPackage, package.NotComparable),
            tempfile.TemporaryDirectory() as folder,
        ):
            champions.settle(name)
            version = versions.get(str(settings.version or settings.alias), name)
            served = versions.fetch(version, Path(folder, "model"))
            self.model = store(version, name, served)
            self.shadow = None
            if settings.serve.shadow is not None:
                shadow = versions.get(str(settings.serve.shadow), name)
                scoring = versions.fetch(shadow, Path(folder, "shadow"))
                package.require_comparable(served, scoring)
                self.shadow = store(shadow, name, scoring)
            self.canary = None
            if settings.serve.canary is not None:
                self.canary = store_canary(settings, version, served, Path(folder, "canary"))
        print(f"{name} version {version.number}: {version.tags.get('summary', '')}")
        self.next(self.build)

    @card(type="blank", id="bento")
    @retry(times=2, minutes_between_retries=0)
    @step
    def build(self) -> None:
        """Build the bento, with a gallery of test pictures to try it with."""
        from bentos import building
        from bentos.classifier.deployment import bento_files
        from bentos.classifier.known_answers import known_answers

        settings, home = self.settings, prepare_environment()
        restore(self.model, self.shadow, self.canary)
        checks_reviews = settings.serve.review_checks > 0 and settings.serve.log.images
        data = load_data(settings, self.model) if settings.serve.gallery or checks_reviews else None
        pictures = gallery(data, settings.serve.gallery)
        package = building.stored_package(self.model["tag"])
        known = choose_known_pictures(data, package, besides=settings.serve.gallery) if checks_reviews else None
        name = bento_name(settings.data.model)
        self.deployment = {
            "bento": name,
            "settings": as_dict(settings.serve),
            "model": self.model,
            "shadow": self.shadow,
            "canary": self.canary,
            "known": known_answers(package, pictures),
        }
        with launch.exit_on(building.BuildFailed):
            self.bento = building.build(
                "classifier",
                bento_files(self.deployment, pictures, known),
                version=f"v{self.model['version']}-{current.run_id}",
                name=name,
            )
        record_settings(settings, self.model, self.canary)
        self.archive = write_archive(self.bento, self.model, home.bento_archives)
        cards.show(
            current.card["bento"],
            title=self.bento,
            texts=[
                self.model["summary"],
                f"Serve it with `make serve`, or `fashion serve --bento {self.archive or self.bento}`.",
            ],
        )
        lineage = [{"name": name, "value": value} for name, value in self.model["lineage"].items()]
        cards.table(current.card["bento"], "Lineage", lineage)
        self.next(self.rollout)

    @card(type="blank", id="rollout")
    @retry(times=2, minutes_between_retries=0)
    @step
    def rollout(self) -> None:
        """Give the version users in steps, or give them back to the version before; nothing without a target."""
        self.outcome = None
        if self.settings.deploy.target != "none":
            self.outcome = roll_out(self.settings, self.model, current.card["rollout"])
        self.next(self.end)

    @step
    def end(self) -> None:
        """Print which bento serves which version; a rollout that was stepped back fails the run."""
        from fashion.deployment.release import require_served
        from fashion.deployment.rollout import RolloutError

        print(f"bento {self.bento} serves {self.model['name']} version {self.model['version']}")
        if self.outcome is not None:
            with launch.exit_on(RolloutError):
                require_served(self.outcome)


def store(version: "Version", name: str, package: "Package") -> dict[str, Any]:
    """Put a version into BentoML's model store, and describe it for the deployment.

    Args:
        version: of the registry.
        name: of the registered model.
        package: the version's package, on this machine's disk.
    """
    from bentos import building
    from fashion.registry import versions

    assert package.folder is not None, "a fetched package has a folder"
    lineage = {key: version.tags[key] for key in versions.LINEAGE if key in version.tags}
    labels = {"model_version": str(version.number), **lineage}
    tag = building.store_model(package.folder, name=name, version=version.number, labels=labels)
    return {
        "name": name,
        "version": str(version.number),
        "tag": tag,
        "digest": package.digest,
        "summary": version.tags.get("summary", ""),
        "lineage": lineage,
    }


def store_canary(settings: ServeConfig, served: "Version", champion: "Package", folder: Path) -> dict[str, Any] | None:
    """Put the canary into the model store, and begin its comparison; None where the registry says that there is none.

    Args:
        settings: which version it is, how much it answers, and by which margin it is judged.
        served: the version that answers the others.
        champion: its package.
        folder: where the canary's package is fetched to.
    """
    from fashion.config.compose import compose
    from fashion.config.train import load_train_config
    from fashion.evaluation import canary
    from fashion.metrics.sequential import Rules
    from fashion.model import package
    from fashion.predictions.record import ModelId
    from fashion.predictions.sources import Outlook
    from fashion.registry import versions

    name, serve = settings.tracking.registered_model, settings.serve
    assert serve.canary is not None, "called where one is configured"
    version, sentence = canary.choose(serve.canary, served, name=name, force_reason=settings.deploy.force_reason)
    print(sentence)
    if version is None:
        return None
    fetched = versions.fetch(version, folder)
    package.require_comparable(champion, fetched)
    gate = load_train_config(compose()).gate
    experiment = canary.begin(
        version,
        ModelId.of(name, served.number, champion.digest),
        ModelId.of(name, version.number, fetched.digest),
        share=serve.canary_share,
        rules=Rules(gate.margin if serve.canary_margin is None else serve.canary_margin, gate.confidence),
        name=name,
    )
    return {
        **store(version, name, fetched),
        "experiment": dataclasses.asdict(experiment),
        "sure_wrong": [Outlook.of(each).sure_wrong for each in (champion, fetched)],
    }


def record_settings(settings: ServeConfig, *answering: dict[str, Any] | None) -> None:
    """Store with the versions that answer how they do: drift judges their rows by it.

    Args:
        settings: of the service.
        answering: as `store` described them, or None.
    """
    from fashion.registry import served_settings, versions

    launch.connect(current_home())
    with launch.exit_on(*UNAVAILABLE, versions.RegistryError):
        for model in answering:
            if model is not None:
                version = versions.get(model["version"], model["name"])
                served_settings.record_coverage(version, settings.serve.coverage, name=model["name"])


def write_archive(bento: str, model: dict[str, Any], address: str | None) -> str | None:
    """Write an archive of a bento, store its address with the model's version, and return the address.

    Args:
        bento: its tag.
        model: as `store` described it.
        address: of the store of archives; None writes none.
    """
    from bentos import archives
    from fashion.registry import versions

    if address is None:
        return None
    with launch.exit_on(*UNAVAILABLE, archives.ArchiveError):
        archive = archives.export(bento, address)
    print(f"{archive.address}: {archive.num_bytes:,} bytes, sha256 {archive.sha256}")
    launch.connect(current_home())
    tags = {"bento": bento, "bento.archive": archive.address, "bento.sha256": archive.sha256}
    with launch.exit_on(*UNAVAILABLE, versions.RegistryError):
        versions.set_tags(versions.get(model["version"], model["name"]), tags, name=model["name"])
    return archive.address


def roll_out(settings: ServeConfig, model: dict[str, Any], shown_on: Any) -> "Outcome":
    """Roll a version out, and show the steps on a card.

    Args:
        settings: where and how.
        model: as `store` described it.
        shown_on: the card.
    """
    from fashion.deployment import release
    from fashion.deployment.rollout import RolloutError
    from fashion.deployment.smoke import Picture
    from fashion.registry import versions

    launch.connect(prepare_environment())
    smoke_rows = settings.deploy.smoke_rows
    pictures = gallery(load_data(settings, model) if smoke_rows else None, smoke_rows)
    with launch.exit_on(*UNAVAILABLE, RolloutError, versions.RegistryError):
        outcome = release.release(
            versions.get(model["version"], model["name"]),
            settings.deploy,
            model=model["name"],
            pictures=[Picture(each.png, each.label) for each in pictures],
            environment=os.environ,
        )
    print(outcome.sentence)
    title = "Rollout (dry run)" if settings.deploy.dry_run else "Rollout"
    cards.show(shown_on, title=title, texts=[outcome.sentence])
    cards.table(
        shown_on,
        "Steps",
        [
            {
                "traffic": f"{stage.share} %",
                "check": each.name,
                "passed": "yes" if each.passed else "no",
                "finding": each.sentence,
            }
            for stage in outcome.stages
            for each in stage.checks
        ],
    )
    return outcome


def restore(*models: dict[str, Any] | None) -> None:
    """Fetch models that this machine's store does not hold: on a cluster each step runs in a pod of its own.

    Args:
        models: as `store` described them, or None.
    """
    from bentos import building
    from fashion.model import package
    from fashion.registry import versions

    for model in models:
        if model is None or building.is_stored(model["tag"], model["digest"]):
            continue
        launch.connect(current_home())
        with (
            launch.exit_on(*UNAVAILABLE, versions.RegistryError, package.DamagedPackage),
            tempfile.TemporaryDirectory() as folder,
        ):
            version = versions.get(model["version"], model["name"])
            fetched = versions.fetch(version, Path(folder, "model"))
            if fetched.digest != model["digest"]:
                raise package.DamagedPackage(
                    f"version {version.number} has the digest {fetched.digest}, and this run began with "
                    f"{model['digest']}: its files were exchanged since; restore them, or start a new run"
                )
            store(version, model["name"], fetched)


def load_data(settings: ServeConfig, model: Mapping[str, Any]) -> "Dataset | None":
    """The data version that a model was trained on; None if it is not available, which is printed.

    Args:
        settings: of which data set.
        model: as `store` described it.
    """
    from fashion.data import loading

    return loading.load_training_data(settings.data, model["lineage"].get("data.digest"), purpose="gallery")


def gallery(data: "Dataset | None", count: int) -> "list[LabelledPicture]":
    """Test pictures, evenly of all classes; none without data.

    Args:
        data: that the model was trained on.
        count: how many.
    """
    from bentos.classifier.deployment import LabelledPicture
    from fashion.data import dataset
    from fashion.images import image_store

    if data is None or not count:
        return []
    rows = dataset.choose_evenly(data.test.labels, count)
    return [
        LabelledPicture(data.class_names[data.test.labels[row]], image_store.to_png(data.test.images[row]))
        for row in rows
    ]


def choose_known_pictures(data: "Dataset | None", package: "Package", *, besides: int) -> bytes | None:
    """Test pictures that check who reviews, none of the gallery; None where there are too few.

    Args:
        data: that the model was trained on.
        package: of the model.
        besides: pictures of the gallery.
    """
    from bentos.classifier import known_pictures
    from fashion.data import dataset
    from fashion.images import image_store

    if data is None:
        return None
    count = besides + known_pictures.CANDIDATES * known_pictures.COUNT
    rows = dataset.choose_evenly(data.test.labels, count)[besides:]
    labels = [package.class_names.index(data.class_names[label]) for label in data.test.labels[rows]]
    chosen = known_pictures.choose(package, [image_store.to_png(data.test.images[row]) for row in rows], labels)
    if chosen is None:
        print(f"no known pictures for the review page: the model is right on too few of {len(rows):,} test pictures")
        return None
    return chosen.to_npz()


if __name__ == "__main__":
    launch.run(DeployFlow, kind=ServeConfig)
