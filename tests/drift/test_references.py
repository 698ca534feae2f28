"""References of registered versions: fetched once, and usable without their files."""

import pickle
import shutil
from pathlib import Path

import pytest

from fashion.config.compose import compose, load_as
from fashion.config.names import MODEL_NAME
from fashion.config.serve import ServeConfig
from fashion.drift.references import References
from fashion.home import Home
from fashion.model.package import Package
from fashion.predictions.record import ModelId
from fashion.registry import served_settings, tracking, versions


@pytest.fixture
def registered(mlflow_home: Home, tiny_package: Package) -> ModelId:
    """The identity of a registered package."""
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {})
    assert tiny_package.folder is not None
    address = versions.log_package(run, tiny_package.folder)
    number = versions.register(address, run_id=run, tags={}).number
    return ModelId.of(MODEL_NAME, number, tiny_package.digest)


def test_a_version_is_fetched_once_and_needs_no_files_then(
    registered: ModelId, tiny_package: Package, tmp_path: Path
) -> None:
    references = References(MODEL_NAME, tmp_path / "packages")
    loaded = references.load(registered)
    assert loaded is not None
    assert loaded.package.data == tiny_package.data
    shutil.rmtree(tmp_path / "packages")
    assert references.load(registered) is loaded
    stats = references.stats(registered)
    assert stats is not None
    assert stats.rows == len(loaded.reference.labels)
    copy = pickle.loads(pickle.dumps(references.loaded))[registered.version]
    assert copy.stats().threshold("predicted labels", 0.3) == stats.threshold("predicted labels", 0.3)
    assert (copy.reference.labels == loaded.reference.labels).all()


def test_the_coverage_that_a_version_was_last_deployed_with_is_watched(registered: ModelId, tmp_path: Path) -> None:
    def coverage() -> float:
        stats = References(MODEL_NAME, tmp_path / "packages").stats(registered)
        assert stats is not None
        return stats.coverage

    configured = load_as(ServeConfig, compose(root=ServeConfig.root)).serve.coverage
    assert coverage() == configured  # no bento was built of it
    for deployed in (0.8, 0.95):
        served_settings.record_coverage(versions.get(registered.version), deployed)
        assert coverage() == deployed
    versions.set_tags(versions.get(registered.version), {served_settings.COVERAGE: "much"})
    with pytest.raises(
        versions.RegistryError, match=r"tag serve.coverage of version 1 must be a number in \(0, 1\), got"
    ):
        coverage()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": "77"}, "30 are of fashion-classifier version 77 ({digest}), which the registry does not hold"),
        ({"name": "shirts"}, "30 are of another model, shirts version 1 ({digest})"),
        (
            {"digest": "f" * 16},
            "30 are of fashion-classifier version 1 (ffffffff), but the registry's version 1 is another package "
            "({digest}): its numbers began anew",
        ),
        (
            {"name": None, "digest": None},
            "30 are of a version 1 of an unnamed model, from before logs held names",
        ),
    ],
)
@pytest.mark.fault("the registry was lost, or two models share a log")
def test_rows_of_another_model_or_package_have_no_reference_and_a_reason(
    changed: dict[str, str | None], reason: str, registered: ModelId, tmp_path: Path, tiny_package: Package
) -> None:
    references, other = References(MODEL_NAME, tmp_path / "packages"), registered._replace(**changed)
    assert references.load(other) is None
    assert references.stats(other) is None
    named = reason.format(digest=tiny_package.digest[:8])
    assert references.describe_unjudged({other: 30}) == f"Rows of this window that are not judged: {named}"
    assert references.stats(registered) is not None
    assert references.describe_unjudged({}) == ""
