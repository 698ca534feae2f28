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


def fetched(of: Path | None, data: Dataset, *, quick: bool) -> Package:
    """The champion's package of the home `of`; without one, that of the default recipe cut to an epoch or two."""
    folder = Path(tempfile.mkdtemp())
    if of is not None:
        address = dataclasses.replace(current_home(), root=of, tracking_uri=f"sqlite:///{of.resolve() / 'mlflow.db'}")
        tracking.connect(address)
        return versions.fetch(versions.get(versions.CHAMPION), folder)
    from fashion.training import export, recipe

    words = ["training.num_epochs=1", "data.limit=1000"] if quick else ["training.num_epochs=2"]
    settings = load_train_config(compose(words))
    say("training a model")
    model, _ = recipe.train(settings, data)
    exported = export.export(model, data.val.images[:1000], mean=data.mean, std=data.std)
    found = scoring.evaluate(
        dataclasses.asdict(exported),
        data,
        check_dataset(data, settings.data),
        data=settings.data,
        architecture=as_dict(settings.architecture),
        training={},
        lineage={"git_commit": "unknown", "metaflow_run_id": "none", "mlflow_run_id": "none"},
    )
    say(found.summary)
    return package.write(found.package, folder, found.files)
