"""Predict a folder or bucket of pictures with a registered version, in parallel, to one Parquet file.

python flows/predict_flow.py run --images pictures/ --output predictions.parquet
python flows/predict_flow.py run --images s3://bucket/pictures --output az://container/predictions.parquet
"""

from fashion.config.names import MODEL_NAME
from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import functools
import tempfile
from pathlib import Path
from typing import Any

from metaflow import FlowSpec, Parameter, card, current, package_sources, project, retry, step
from runtime import cards, events, launch, pods

from fashion.config.schema import ConfigError, check_model_name
from fashion.storage.servers import ServerUnavailable

MAX_LISTED_FILES = 1000
"""Unreadable files in the card."""


@project(name=events.PROJECT)
@pods.Pods
@package_sources([("../fashion", "fashion"), ("../configs", "configs")], suffixes=[".py", ".yaml", ".json"])
class PredictFlow(FlowSpec):
    """Pictures -> predictions, one part of them in each task."""

    images = Parameter("images", required=True, help="a folder, or gs://, s3:// or az://bucket/prefix; with subfolders")
    output = Parameter("output", required=True, help="a Parquet file, in a folder or a bucket")
    version = Parameter("version", default="champion", help="number or alias of the version")
    model = Parameter("model", default=MODEL_NAME, help="registered model")
    workers = Parameter("workers", default=1, type=int, help="tasks that share the pictures")

    @step
    def start(self) -> None:
        """Find the version and the pictures."""
        from fashion.model import bulk
        from fashion.registry import versions
        from fashion.storage.address import open_store
        from fashion.storage.blobs import StoreUnavailable

        with launch.exit_on(ConfigError):
            check_model_name(self.model)
        launch.connect(current_home())
        with launch.exit_on(
            versions.RegistryError, bulk.NothingToPredict, StoreUnavailable, ServerUnavailable, ValueError
        ):
            bulk.check_output(self.output)
            self.version_number = versions.get(self.version, self.model).number
            names, others = bulk.find_pictures(open_store(bulk.absolute_address(self.images)))
            self.parts = bulk.split_evenly(names, self.workers)
        print(f"{len(names):,} pictures for {self.model} version {self.version_number}")
        if others:
            some = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            print(f"{len(others):,} files are passed over, whose names are not those of pictures: {some}")
        self.next(self.predict, foreach="parts")

    @retry(times=2, minutes_between_retries=0)
    @step
    def predict(self) -> None:
        """Predict one part; a file that cannot be read is listed, and the others are predicted."""
        from fashion.model import bulk, package
        from fashion.model.predictor import Predictor
        from fashion.registry import versions
        from fashion.storage.address import open_store
        from fashion.storage.blobs import StoreUnavailable

        launch.connect(current_home())
        store = open_store(bulk.absolute_address(self.images))
        with (
            tempfile.TemporaryDirectory() as folder,
            launch.exit_on(versions.RegistryError, package.DamagedPackage, StoreUnavailable, ServerUnavailable),
        ):
            served = versions.fetch(versions.get(str(self.version_number), self.model), Path(folder))
            self.class_names, self.digest = served.class_names, served.digest
            self.result = bulk.predict(
                Predictor(served), store, self.input, on_progress=functools.partial(print, flush=True)
            )
        self.next(self.join)

    @card(type="blank", id="predictions")
    @step
    def join(self, parts: Any) -> None:
        """Write one table of all parts."""
        from fashion.model import bulk
        from fashion.storage.blobs import StoreUnavailable

        result = bulk.join([part.result for part in parts])
        class_names = parts[0].class_names
        with launch.exit_on(StoreUnavailable):
            model = (self.model, parts[0].version_number, parts[0].digest)
            bulk.write(result, self.output, class_names=class_names, model=model)
        self.rows, self.bad_files = len(result.names), result.unreadable
        title = f"{self.rows:,} pictures predicted, {len(self.bad_files):,} could not be read"
        cards.show(current.card["predictions"], title=title, texts=[f"In `{self.output}`"])
        cards.table(current.card["predictions"], "Classes", bulk.count_classes(result, class_names))
        unreadable = [{"file": name, "reason": reason} for name, reason in self.bad_files.items()]
        cards.table(current.card["predictions"], "Files that could not be read", unreadable[:MAX_LISTED_FILES])
        print(f"{title}; in {self.output}")
        for each in unreadable[:20]:
            print(f"  {each['file']}: {each['reason']}")
        self.next(self.end)

    @step
    def end(self) -> None:
        """Do nothing: Metaflow ends each flow with this step."""


if __name__ == "__main__":
    launch.run_plain(PredictFlow)
