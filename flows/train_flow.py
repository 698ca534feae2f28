"""Train, evaluate and register a model, and let the gate decide whether it becomes the champion.

python flows/train_flow.py run
python flows/train_flow.py run architecture=resnet training.num_epochs=3 tuning=off
"""

from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import dataclasses
import functools
import json
import tempfile
from pathlib import Path

from metaflow import Config, FlowSpec, card, config_expr, current, package_sources, resources, retry, step
from runtime import cards, launch

from fashion.config.compose import as_dict
from fashion.config.schema import ConfigError
from fashion.config.train import load_train_config


@launch.triggered(launch.RETRAIN)
@package_sources([("../fashion", "fashion"), ("../configs", "configs")], suffixes=[".py", ".yaml", ".json"])
class TrainFlow(FlowSpec):
    """Data -> tuning -> training -> evaluation -> registry and gate."""

    config = Config(
        "config",
        default_value=launch.words_from_environment,
        parser=launch.parse_config,
        help="configuration words, e.g. 'architecture=resnet training.num_epochs=3'",
    )

    @card(type="blank", id="data")
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        """Fetch and check the data, and open the MLflow run that all else is logged to."""
        from fashion.figures import frame, galleries
        from fashion.registry import lineage, tracking

        settings = load_train_config(self.config.to_dict())
        home = prepare_environment()
        data, report = load_data(settings)
        self.lessons = collect_lessons(settings, data, home)
        self.data_digest = data.digest
        self.git_commit = lineage.git_commit()
        self.tuning = "on" if settings.tuning.enabled else "off"
        self.study = f"{current.flow_name}-{current.run_id}"
        self.checkpoints = f"{current.flow_name}/{current.run_id}"  # of this run, however often it is resumed

        tracking.connect(home)
        self.experiment_id = tracking.get_or_create_experiment(home, settings.tracking.experiment)
        self.mlflow_run_id = tracking.start_run(
            self.experiment_id,
            f"{settings.architecture.name} {current.run_id}",
            {
                "metaflow_run_id": f"{current.flow_name}/{current.run_id}",
                "git_commit": self.git_commit,
                "architecture": settings.architecture.name,
                "mlflow.source.name": "flows/train_flow.py",
                "mlflow.source.git.commit": self.git_commit,
            },
        )
        tracking.log_params(self.mlflow_run_id, self.config.to_dict())
        tracking.log_dataset(
            self.mlflow_run_id,
            name=data.name,
            digest=data.digest,
            source=settings.data.manifest,
            images=data.train.images,
            labels=data.train.labels,
        )
        if self.lessons is not None:
            tracking.log_files(self.mlflow_run_id, {"data/feedback.csv": self.lessons.as_csv()})
            tracking.log_tags(self.mlflow_run_id, {"feedback": self.lessons.summary})
        samples = frame.to_png(galleries.samples(data.train.images, data.train.labels, data.class_names))
        tracking.log_files(self.mlflow_run_id, {"data/samples.png": samples})
        cards.show(
            current.card["data"],
            title=f"{data.name}, version {data.digest[:12]}",
            texts=[*report.warnings, *([self.lessons.summary] if self.lessons else [])],
            pictures={"What the classes look like": samples},
        )
        cards.table(
            current.card["data"],
            "Rows",
            [{"split": name, "rows": f"{count:,}"} for name, count in report.num_rows.items()],
        )
        cards.table(
            current.card["data"],
            "Exact copies",
            [{"where": name, "images": count} for name, count in report.duplicates.items()],
        )
        print(f"{data.name} {data.digest[:12]}: {report.num_rows}")
        if self.lessons is not None:
            print(self.lessons.summary)
        self.next({"on": self.plan, "off": self.train}, condition="tuning")

    @step
    def plan(self):
        """Create the study, and as many workers as share it."""
        from fashion.training import tuning

        settings = load_train_config(self.config.to_dict())
        tuning.create_study(current_home().studies, self.study, settings)
        self.workers = list(range(settings.tuning.num_workers))
        self.next(self.tune, foreach="workers")

    @resources(
        cpu=config_expr("config.resources.cpu"),
        gpu=config_expr("config.resources.gpu"),
        memory=config_expr("config.resources.memory"),
    )
    @retry(times=3, minutes_between_retries=0)
    @step
    def tune(self):
        """Run this worker's share of the trials."""
        from fashion.training import tuning
        from fashion.training.objective import Objective

        settings = load_train_config(self.config.to_dict())
        data = with_lessons(load_data(settings)[0], self.lessons, settings)
        objective = Objective(settings, data, report=functools.partial(print, flush=True))
        with launch.told(ConfigError, first=functools.partial(mark_failed, self.mlflow_run_id)):
            tuning.work(current_home().studies, self.study, self.input, settings, objective)
        self.next(self.collect)

    @card(type="blank", id="study")
    @retry(times=2, minutes_between_retries=0)
    @step
    def collect(self, workers):
        """Choose the values to train with, and log every trial once."""
        from fashion.registry import tracking
        from fashion.training import tuning
        from fashion.training.study_figures import PLOTS, study_figures

        self.merge_artifacts(workers, exclude=["workers"])
        settings = load_train_config(self.config.to_dict())
        trials = tuning.trials(current_home().studies, self.study)
        with launch.told(tuning.NothingCompleted), tracking.failing(self.mlflow_run_id):
            choice = tuning.choose(trials, settings)
        self.params = choice.params
        tracking.connect(current_home())
        tracking.log_trials(self.experiment_id, self.mlflow_run_id, tuning.tracked(trials))
        files = study_figures(trials)
        tracking.log_files(self.mlflow_run_id, {f"tuning/{name}": content for name, content in files.items()})
        cards.show(
            current.card["study"],
            title=f"Best of {settings.tuning.num_trials} trials: validation accuracy {choice.best_value:.2%}",
            texts=[choice.reason],
            pictures={caption: files[f"{name}.png"] for name, caption in PLOTS.items() if f"{name}.png" in files},
        )
        cards.table(
            current.card["study"],
            "Values to train with",
            [{"value": name, "set to": f"{value:.4g}"} for name, value in choice.params.items()],
        )
        print(choice.reason)
        self.next(self.train)

    @card(type="blank", id="training", refresh_interval=2)
    @resources(
        cpu=config_expr("config.resources.cpu"),
        gpu=config_expr("config.resources.gpu"),
        memory=config_expr("config.resources.memory"),
    )
    @retry(times=2, minutes_between_retries=0)
    @step
    def train(self):
        """Train with the chosen values, from the last checkpoint where there is one, and export."""
        from fashion.registry import tracking
        from fashion.storage.address import open_store
        from fashion.training import export, recipe
        from fashion.training.fit import Diverged
        from fashion.training.progress import Watch
        from fashion.training.search_space import with_params

        settings = with_params(load_train_config(self.config.to_dict()), getattr(self, "params", {}))
        data = with_lessons(load_data(settings)[0], self.lessons, settings)
        tracking.connect(current_home())
        curves = cards.LiveCurves(current.card["training"], f"Training {settings.architecture.name}")
        watch = Watch(self.mlflow_run_id, data, settings, curves, report=functools.partial(print, flush=True))
        checkpoints = open_store(f"{current_home().checkpoints}/{self.checkpoints}")
        with (
            launch.told(ConfigError, Diverged),
            tracking.failing(self.mlflow_run_id),
            tracking.system_metrics(self.mlflow_run_id),
        ):
            model, fitted = recipe.train(
                settings,
                data,
                checkpoints=checkpoints,
                on_epoch=watch.epoch,
                on_step=watch.step,
                on_restored=watch.restored,
            )
            exported = export.export(model, data.val.images[:1000], mean=data.mean, std=data.std)
        self.exported = dataclasses.asdict(exported)
        self.architecture = as_dict(settings.architecture)
        self.training = {
            "config": as_dict(settings.training),
            "optimizer": as_dict(settings.optimizer),
            "augmentation": as_dict(settings.augmentation),
            "best_epoch": fitted.best.epoch,
            "cpu_seconds": fitted.history[-1].cpu_seconds,
            "precision": fitted.precision,
            "device": fitted.device,
            "num_threads": fitted.num_threads,
        }
        self.history = [dataclasses.asdict(epoch) for epoch in fitted.history]
        self.next(self.evaluate)

    @card(type="blank", id="evaluation")
    @retry(times=2, minutes_between_retries=0)
    @step
    def evaluate(self):
        """Calibrate, score on the test split, and log the model package."""
        from fashion.evaluation import scoring
        from fashion.model import package
        from fashion.registry import tracking, versions

        settings = load_train_config(self.config.to_dict())
        data, report = load_data(settings)
        tracking.connect(current_home())
        with tracking.failing(self.mlflow_run_id):
            found = scoring.evaluate(
                self.exported,
                data,
                report,
                data=settings.data,
                architecture=self.architecture,
                training=self.training,
                lineage={
                    "git_commit": self.git_commit,
                    "metaflow_run_id": f"{current.flow_name}/{current.run_id}",
                    "mlflow_run_id": self.mlflow_run_id,
                },
            )
            # val/accuracy has a curve already, of which this would be a stray point.
            measured = {name: metric.value for name, metric in found.package.metrics.items()}
            del measured["val/accuracy"]
            tracking.log_metrics(self.mlflow_run_id, measured)
            tracking.log_files(
                self.mlflow_run_id, {f"evaluation/{name}.png": png for name, png in found.figures.items()}
            )
            tracking.log_table(self.mlflow_run_id, "evaluation/per_class.json", found.scores)
            tracking.log_table(self.mlflow_run_id, "evaluation/metrics.json", found.measurements)
            with tempfile.TemporaryDirectory() as folder:
                package.write(found.package, Path(folder, "package"), found.files)
                self.model_uri = versions.log_package(self.mlflow_run_id, Path(folder, "package"))
        self.metrics = {name: dataclasses.asdict(metric) for name, metric in found.package.metrics.items()}
        self.summary = found.summary
        pictures = {scoring.CAPTIONS[name]: png for name, png in found.figures.items()}
        cards.show(current.card["evaluation"], title=found.summary, pictures=pictures)
        cards.table(
            current.card["evaluation"],
            "Classes",
            [
                {
                    "class": s.name,
                    "precision": _percent(s.precision),
                    "recall": _percent(s.recall),
                    "F1": _percent(s.f1),
                }
                for s in found.scores
            ],
        )
        cards.table(
            current.card["evaluation"],
            "Metrics",
            [
                {"metric": name, "value": f"{m.value:.4f}", "95 % interval": _interval(m)}
                for name, m in found.package.metrics.items()
            ],
        )
        print(found.summary)
        self.next(self.register)

    @card(type="blank", id="verdict")
    @retry(times=2, minutes_between_retries=0)
    @step
    def register(self):
        """Register the version, and promote it where it is no worse than the champion."""
        from fashion.evaluation import gate
        from fashion.model import package
        from fashion.registry import tracking, versions

        settings = load_train_config(self.config.to_dict())
        data, _ = load_data(settings)
        tracking.connect(current_home())
        name = settings.tracking.registered_model
        with tempfile.TemporaryDirectory() as folder, tracking.failing(self.mlflow_run_id):
            version = versions.register(
                self.model_uri,
                run_id=self.mlflow_run_id,
                name=name,
                tags={
                    "summary": self.summary,
                    "architecture": self.architecture["name"],
                    "data.digest": self.data_digest,
                    "git_commit": self.git_commit,
                    "metaflow_run_id": f"{current.flow_name}/{current.run_id}",
                    "mlflow_run_id": self.mlflow_run_id,
                },
            )
            champion = versions.champion(name)
            decided = champion is not None and champion.number == version.number  # a retry, after promotion
            if decided:
                champion = versions.previous_champion(version, name=name)
            verdict = gate.FIRST
            if champion is not None:
                with launch.told(package.DamagedPackage):
                    verdict = gate.judge(
                        versions.fetch(champion, Path(folder, "champion")),
                        versions.fetch(version, Path(folder, "challenger")),
                        judged_on(data, self.lessons, settings),
                        settings.gate,
                    )
            reason = verdict.reason
            self.version = version.number
            self.promoted = verdict.promoted
            self.verdict = dataclasses.asdict(verdict)
            tracking.log_files(self.mlflow_run_id, {"verdict.json": json.dumps(self.verdict, indent=1).encode()})
            tracking.log_tags(
                self.mlflow_run_id, {"version": str(self.version), "promoted": str(self.promoted), "reason": reason}
            )
            versions.set_tags(version, gate.as_tags(verdict), name=name)
            if not decided:
                decide = versions.promote if verdict.promoted else versions.reject
                decide(version, reason=reason, name=name)
            tracking.finish_run(self.mlflow_run_id)
        self.outcome = f"version {self.version} {'is the champion' if self.promoted else 'was refused'}: {reason}"
        cards.show(current.card["verdict"], title=f"Version {self.version}", texts=[self.outcome])
        cards.table(
            current.card["verdict"],
            "Checks",
            [{"check": c.name, "passed": "yes" if c.passed else "no", "finding": c.sentence} for c in verdict.checks],
        )
        self.next(self.end)

    @step
    def end(self):
        """Say what came of it."""
        print(self.summary)
        print(self.outcome)


def load_data(settings):
    """The data set and what a look at it found, fetched where this machine does not have it yet."""
    from fashion.data import dataset, manifest
    from fashion.data.checks import check_dataset
    from fashion.data.fetch import fetch_data

    with launch.told(manifest.DataError):
        fetch_data(settings.data, current_home().data)
        data = dataset.load(settings.data, current_home().data)
        return data, check_dataset(data, settings.data)


def collect_lessons(settings, data, home):
    """Labelled pictures of users, where they are asked for and there is a log."""
    if not (settings.feedback.use or launch.was_triggered(launch.RETRAIN)):
        return None
    from fashion.predictions import labelled, windows
    from fashion.predictions.record import LogUnavailable
    from fashion.storage.address import open_store
    from fashion.storage.blobs import StoreUnavailable

    with launch.told(LogUnavailable, StoreUnavailable):
        rows = windows.open_source(home).labelled()
        return labelled.collect(rows, open_store(home.images), settings.data, data, settings.feedback)


def mark_failed(run_id, _):
    """Say in MLflow that a run has come to nothing. Imported here: a worker that does its work needs no MLflow."""
    from fashion.registry import tracking

    tracking.connect(current_home())
    tracking.finish_run(run_id, failed=True)


def with_lessons(data, lessons, settings):
    """The data set with what users taught among its training rows. What is scored and measured stays as it is."""
    from fashion.predictions import labelled

    if lessons is None:
        return data
    return dataclasses.replace(data, train=labelled.with_feedback(data.train, lessons.train, settings.feedback.repeat))


def judged_on(data, lessons, settings):
    """The rows that the gate decides on, by name: those of users too where there are enough."""
    if lessons is None or len(lessons.held_out) < settings.gate.min_feedback_rows:
        return {"test": data.test}
    return {"test": data.test, "feedback": lessons.held_out}


def _percent(share):
    return f"{100 * share:.1f} %"


def _interval(metric):
    return "" if metric.low is None else f"{metric.low:.4f} to {metric.high:.4f}"


if __name__ == "__main__":
    launch.run(TrainFlow, check=launch.check_network)
