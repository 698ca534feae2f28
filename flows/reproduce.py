"""Train once with what standard input names, without MLflow and Metaflow; print the digest of the weights.

It is a JSON object: `config`, a composed TrainConfig, and `data_version`, the manifest of the data to train on.

`fashion registry reproduce` runs it: commands do not train.
"""

from fashion.home import current_home, prepare_environment

prepare_environment()

import hashlib
import json
import sys

from fashion.config.train import load_train_config
from fashion.data import manifest
from fashion.data.loading import load_dataset
from fashion.training import export, recipe
from fashion.training.state import Epoch


def main() -> None:
    """Train, and print one line of JSON at the end; progress goes to standard error."""
    given = json.load(sys.stdin)
    config = load_train_config(given["config"])
    data = load_dataset(config.data, current_home().data, version=manifest.parse(json.dumps(given["data_version"])))

    def report(epoch: Epoch, _: object) -> None:
        line = f"epoch {epoch.epoch}/{config.training.num_epochs}: val/accuracy {epoch.val_accuracy:.2%}"
        print(line, file=sys.stderr, flush=True)

    model, _ = recipe.train(config, data, on_epoch=report)
    exported = export.export(model, data.val.images[: export.COMPARED_ROWS], mean=data.mean, std=data.std)
    content = {
        "weights": hashlib.sha256(exported.weights).hexdigest(),
        "libraries": recipe.libraries(),
        "processor": recipe.processor(),
    }
    print(json.dumps(content))


if __name__ == "__main__":
    main()
