"""The changes that docs/how-to shows apply to the present code and do what the pages say."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.home import REPOSITORY

PAGES = {
    path.stem: "".join(re.findall(r"```diff\n(.*?)```", path.read_text(), re.DOTALL))
    for path in sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))
}
CHANGES = {name: change for name, change in PAGES.items() if change}
"""Name of the page -> its change."""

SCRIPT = """
import json, sys
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.checks import check_dataset
from fashion.data.loading import load_dataset
from fashion.evaluation import scoring
from fashion.home import current_home
from fashion.training import export, models, recipe

config = load_train_config(compose(sys.argv[1:]))
data = load_dataset(config.data, current_home().data)
model, _ = recipe.train(config, data)
exported = export.export(model, data.val.images[:50], mean=data.mean, std=data.std)
evaluation = scoring.evaluate(
    vars(exported), data, check_dataset(data, config.data), data=config.data,
    architecture={}, training={}, lineage={},
)
print(json.dumps({
    "file": models.__file__,
    "network": type(model).__name__,
    "optimizer": config.optimizer.name,
    "noise": config.augmentation.noise,
    "metrics": {name: metric.value for name, metric in evaluation.package.metrics.items()},
}))
"""


def apply(change: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Apply a change to a copy of the repository."""
    command = ["git", "apply", *options, "-"]
    return subprocess.run(command, cwd=folder, input=change, capture_output=True, text=True)


def test_four_pages_show_a_change() -> None:
    assert set(CHANGES) == {"architecture", "augmentation", "metric", "optimizer"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_applies_to_the_present_code(name: str) -> None:
    done = apply(CHANGES[name], REPOSITORY, "--check")
    assert done.returncode == 0, f"docs/how-to/{name}.md: {done.stderr}"


@pytest.mark.slow
def test_the_changed_code_trains_and_measures_what_the_pages_say(tmp_path: Path) -> None:
    for name in ("fashion", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, change in CHANGES.items():
        done = apply(change, tmp_path)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    home = tmp_path / "var"
    home.mkdir()
    (home / "data").symlink_to(REPOSITORY / "var" / "data")
    kept = {name: value for name, value in os.environ.items() if name != "HYDRA_ARGS"}
    overrides = ["architecture=patchnet", "optimizer=nadam", "augmentation.noise=0.1", "tuning=off"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *overrides, "data.limit=200", "training.num_epochs=1"],
        cwd=tmp_path,
        env={
            **kept,
            "PYTHONPATH": str(tmp_path),
            "FASHION_CONFIGS": str(tmp_path / "configs"),
            "FASHION_HOME": str(home),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert Path(said["file"]).is_relative_to(tmp_path)
    assert (said["network"], said["optimizer"], said["noise"]) == ("PatchNet", "nadam", 0.1)
    assert said["metrics"]["test/accuracy"] <= said["metrics"]["test/top2_accuracy"] <= 1
