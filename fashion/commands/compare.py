"""The command `fashion registry`: champion against another model on what users sent. Decides nothing."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fashion.evaluation.comparison import Comparison, Pair, format_table
from fashion.home import Home, current_home, prepare_environment
from fashion.images import image_store
from fashion.model import package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LoggedPrediction, LogUnavailable, UnknownPrediction, pages
from fashion.registry import tracking, versions
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, StoreUnavailable

ROWS = 10_000
TOGETHER = 100


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 when there was something to compare."""
    options = _parser().parse_args(words)
    home = prepare_environment()
    if not home.predictions.exists():
        print(f"error: there is no prediction log {home.predictions}: `make serve` begins one", file=sys.stderr)
        return 1
    try:
        with PredictionLog(home.predictions) as log:
            return int(options.verb(log, home, options))
    except (*versions.ERRORS, package.DamagedPackage, LogUnavailable, StoreUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fashion registry", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("compare", help="champion and shadow on the pictures that both have scored")
    verb.set_defaults(verb=_compare)
    verb.add_argument("--rows", type=int, default=ROWS, help="latest predictions to look at")
    verb = verbs.add_parser("replay", help="score logged pictures with a registered version, and compare")
    verb.set_defaults(verb=_replay)
    verb.add_argument("--version", required=True, help="number or alias")
    verb.add_argument("--rows", type=int, default=ROWS, help="latest predictions to look at")
    parser.add_argument("--name", default=versions.MODEL_NAME, help="registered model")
    return parser


def _compare(log: PredictionLog, home: Home, options: argparse.Namespace) -> int:
    shadows = log.latest(options.rows, role="shadow")
    by_pair: dict[tuple[str, str], Comparison] = {}
    for shadow in shadows:
        try:
            answered = log.get(shadow.record.prediction_id)
        except UnknownPrediction:  # dropped by retention just now
            continue
        key = (answered.record.model_version, shadow.record.model_version)
        by_pair.setdefault(key, Comparison()).add([_pair(answered, shadow)])
    if not by_pair:
        print("no shadow has scored anything: deploy one with serve.shadow=challenger", file=sys.stderr)
        return 1
    names = _class_names(options.name)
    for (champion, other), found in by_pair.items():
        print(format_table(found, served=f"version {champion}", other=f"version {other}", class_names=names))
    return 0


def _replay(log: PredictionLog, home: Home, options: argparse.Namespace) -> int:
    from fashion.model.predictor import Predictor

    tracking.connect(home)
    version = versions.get(options.version, options.name)
    store = open_store(home.images)
    found, missing, other, answered = Comparison(), 0, 0, ""
    with tempfile.TemporaryDirectory() as folder:
        contents = versions.fetch(version, Path(folder))
        predictor = Predictor(contents)
        for page in pages(log.latest(options.rows, role="champion"), TOGETHER):
            images, rows = [], []
            for each in page:
                try:
                    image = image_store.get(store, each.record.image_sha256)
                    if image.shape[:2] != (contents.size, contents.size) or image.ndim != 2 + (contents.channels > 1):
                        other += 1
                        continue
                    images.append(image)
                    rows.append(each)
                except (BlobNotFound, image_store.DamagedImage):
                    missing += 1
            if not rows:
                continue
            scored = predictor.predict(np.stack(images))
            answered = answered or f"version {rows[0].record.model_version}"
            found.add(
                Pair(
                    each.record.label,
                    each.record.confidence,
                    int(scored.labels[row]),
                    float(scored.confidences[row]),
                    each.true_label,
                )
                for row, each in enumerate(rows)
            )
            print(f"\r{found.rows:,} scored", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if missing:
        print(f"{missing:,} pictures were not kept (serve.log.images=true keeps them) or are damaged", file=sys.stderr)
    if other:
        print(
            f"{other:,} pictures are of another size or have other channels than version {version.number} takes",
            file=sys.stderr,
        )
    if not found.rows:
        return 1
    scored_by = f"version {version.number}"
    print(format_table(found, served="as answered", other=scored_by, class_names=contents.class_names))
    return 0


def _pair(answered: LoggedPrediction, shadow: LoggedPrediction) -> Pair:
    return Pair(
        answered.record.label,
        answered.record.confidence,
        shadow.record.label,
        shadow.record.confidence,
        answered.true_label,
    )


def _class_names(name: str) -> Sequence[str]:
    """Of the champion; none where the registry cannot tell: then labels are shown as numbers."""
    try:
        tracking.connect(current_home())
        champion = versions.champion(name)
        if champion is None:
            return ()
        with tempfile.TemporaryDirectory() as folder:
            return versions.fetch(champion, Path(folder)).class_names
    except (*versions.ERRORS, package.DamagedPackage) as error:
        print(f"classes are shown by number: {error}", file=sys.stderr)
        return ()
