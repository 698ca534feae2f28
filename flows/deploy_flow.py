"""Build a bento of a registered version: the champion, unless told otherwise.

python flows/deploy_flow.py run
python flows/deploy_flow.py run version=7 serve.shadow=challenger
"""

from fashion.home import prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import functools
import tempfile
from pathlib import Path

from metaflow import Config, FlowSpec, card, current, package_sources, retry, step
from runtime import cards, launch

from fashion.config.compose import as_dict, load_as
from fashion.config.serve import ServeConfig


@launch.after("TrainFlow")
@package_sources(
    [("../fashion", "fashion"), ("../bentos", "bentos"), ("../configs", "configs")],
    suffixes=[".py", ".yaml", ".json", ".html", ".css", ".js", ".svg", ".template"],
)
class DeployFlow(FlowSpec):
    """Registry -> BentoML's model store -> bento."""

    config = Config(
        "config",
        default_value=launch.words_from_environment,
        parser=functools.partial(launch.parse_config, kind=ServeConfig),
        help="configuration words, e.g. 'version=7 serve.shadow=challenger'",
    )

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        """Find the versions, verify their packages, and put them into the model store."""
        from bentos import building
        from fashion.model import package
        from fashion.registry import tracking, versions

        settings = load_as(ServeConfig, self.config.to_dict())
        home = prepare_environment()
        tracking.connect(home)
        name = settings.tracking.registered_model
        with (
            tempfile.TemporaryDirectory() as folder,
            launch.told(versions.RegistryError, package.DamagedPackage, package.NotComparable),
        ):
            version = versions.get(str(settings.version or settings.alias), name)
            served = versions.fetch(version, Path(folder, "model"))
            self.model = _described(version, name, building.store_model(served.folder, **_stored(version, name)))
            self.shadow = None
            if settings.serve.shadow is not None:
                shadow = versions.get(str(settings.serve.shadow), name)
                scoring = versions.fetch(shadow, Path(folder, "shadow"))
                package.require_comparable(served, scoring)
                self.shadow = _described(shadow, name, building.store_model(scoring.folder, **_stored(shadow, name)))
        print(f"{name} version {version.number}: {version.tags.get('summary', '')}")
        self.next(self.build)

    @card(type="blank", id="bento")
    @retry(times=2, minutes_between_retries=0)
    @step
    def build(self):
        """Build the bento, with a gallery of test pictures to try it with."""
        from bentos import building
        from bentos.classifier.deployment import bento_files

        settings = load_as(ServeConfig, self.config.to_dict())
        home = prepare_environment()
        self.deployment = {
            "settings": as_dict(settings.serve),
            "model": self.model,
            "shadow": self.shadow,
            "home": str(home.root),
        }
        gallery = _gallery(settings, self.model["lineage"].get("data.digest")) if settings.serve.gallery else []
        with launch.told(building.BuildFailed):
            self.bento = building.build(
                "classifier",
                bento_files(self.deployment, gallery),
                version=f"v{self.model['version']}-{current.run_id}",
            )
        cards.show(
            current.card["bento"],
            title=self.bento,
            texts=[
                self.model["summary"],
                f"Serve it with `make serve`, or `fashion serve --bento {self.bento}`.",
            ],
        )
        cards.table(
            current.card["bento"],
            "Lineage",
            [{"of": key, "is": value} for key, value in self.model["lineage"].items()],
        )
        self.next(self.end)

    @step
    def end(self):
        """Say what came of it."""
        print(f"bento {self.bento} serves {self.model['name']} version {self.model['version']}")


def _described(version, name, tag):
    from fashion.registry import versions

    return {
        "name": name,
        "version": str(version.number),
        "tag": tag,
        "summary": version.tags.get("summary", ""),
        "lineage": {key: version.tags[key] for key in versions.LINEAGE if key in version.tags},
    }


def _stored(version, name):
    from fashion.registry import versions

    labels = {key: version.tags[key] for key in versions.LINEAGE if key in version.tags}
    return {"name": name, "version": version.number, "labels": {"model_version": str(version.number), **labels}}


def _gallery(settings, digest):
    """Test pictures, evenly of all classes; none where the data set that the model learnt from is not at hand."""
    from bentos.classifier.deployment import LabelledPicture
    from fashion.data import dataset, loading
    from fashion.images import image_store

    data = loading.load_training_data(settings.data, digest, purpose="gallery")
    if data is None:
        return []
    chosen = dataset.choose_evenly(data.test.labels, settings.serve.gallery)
    return [
        LabelledPicture(data.class_names[data.test.labels[row]], image_store.to_png(data.test.images[row]))
        for row in chosen
    ]


if __name__ == "__main__":
    launch.run(DeployFlow, kind=ServeConfig)
