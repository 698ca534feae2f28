"""A model for benchmarks: the champion of a home, or one that is trained for them, for a minute or two."""

import dataclasses
import tempfile
from pathlib import Path

from fashion.config.compose import as_dict, compose
from fashion.config.train import load_train_config
from fashion.data.checks import check_dataset
from fashion.data.dataset import Dataset
from fashion.evaluation import scoring
from fashion.home import current_home
from fashion.model import package
from fashion.model.package import Package
from fashion.registry import tracking, versions
from tests.benchmarks.measurement import say


def load_package(root: Path | None, data: Dataset, *, quick: bool) -> Package:
    """The package of a home's champion; without a home, of the default recipe trained for an epoch or two."""
    folder = Path(tempfile.mkdtemp())
    if root is not None:
        home = dataclasses.replace(current_home(), root=root, tracking_uri=f"sqlite:///{root.resolve() / 'mlflow.db'}")
        tracking.connect(home)
        return versions.fetch(versions.get(versions.CHAMPION), folder)
    from fashion.training import export, recipe

    overrides = ["training.num_epochs=1", "data.limit=1000"] if quick else ["training.num_epochs=2"]
    settings = load_train_config(compose(overrides))
    say("training a model")
    model, _ = recipe.train(settings, data)
    exported = export.export(model, data.val.images[: export.COMPARED_ROWS], mean=data.mean, std=data.std)
    evaluation = scoring.evaluate(
        dataclasses.asdict(exported),
        data,
        check_dataset(data, settings.data),
        data=settings.data,
        architecture=as_dict(settings.architecture),
        training={},
        lineage={"git_commit": "unknown", "metaflow_run_id": "none", "mlflow_run_id": "none"},
    )
    say(evaluation.summary)
    return package.write(evaluation.package, folder, evaluation.files)
