"""Train, evaluate and register a model, and let the gate decide whether it becomes the champion.

python flows/train_flow.py run
python flows/train_flow.py run architecture=resnet training.num_epochs=3 tuning=off
"""

from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Any

from metaflow import (
    Config,
    FlowSpec,
    Parameter,
    card,
    config_expr,
    current,
    package_sources,
    parallel,
    project,
    resources,
    retry,
    step,
)
from runtime import cards, chaining, events, launch, pods, training_inputs
from runtime import parallel as nodes

from fashion.config.compose import as_dict
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig
from fashion.storage.blobs import StoreUnavailable
from fashion.storage.servers import ServerUnavailable

if TYPE_CHECKING:
    from fashion.data.dataset import Dataset

configured_resources = resources(
    cpu=config_expr("config.resources.cpu"),
    gpu=config_expr("config.resources.gpu"),
    memory=config_expr("config.resources.memory"),
)
one_machine_resources = resources(
    cpu=config_expr("config.resources.cpu if config.resources.nodes == 1 else 1"),
    gpu=config_expr("config.resources.gpu if config.resources.nodes == 1 else 0"),
    memory=config_expr("config.resources.memory"),
)
trial_resources = resources(
    cpu=config_expr("config.resources.cpu"),
    gpu=config_expr("min(config.resources.gpu, 1)"),
    memory=config_expr("config.resources.memory"),
)


@project(name=events.PROJECT)
@events.start_on(events.RETRAIN, ["overrides", "deploy", "deploy_overrides"])
@pods.Pods
@package_sources([("../fashion", "fashion"), ("../configs", "configs")], suffixes=[".py", ".yaml", ".json"])
class TrainFlow(FlowSpec):
    """Data -> tuning -> training -> evaluation -> registry and gate."""

    config = Config(
        "config",
        default_value=launch.overrides_from_environment,
        parser=launch.parse_config,
        help="configuration overrides, e.g. 'architecture=resnet training.num_epochs=3'",
    )
    overrides = Parameter("overrides", default="", help="further overrides of this run of a deployed flow")
    deploy = Parameter("deploy", default=True, type=bool, help="on a cluster, build a bento of a new champion")
    deploy_overrides = Parameter("deploy_overrides", default="", help="overrides of the flow that builds it")

    @property
    def settings(self) -> TrainConfig:
        """The configuration of this run."""
        return launch.stored_config(TrainConfig, self.configuration)

    @card(type="blank", id="data")
    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self) -> None:
        """Fetch and check the data, and open the MLflow run that all steps log to."""
        from runtime import training_cards

        from fashion.data import published
        from fashion.data.checks import check_dataset
        from fashion.data.manifest import DataError
        from fashion.figures import frame, galleries
        from fashion.registry import lineage, tracking

        with launch.exit_on(ConfigError):
            self.configuration = launch.with_overrides(self.config.to_dict(), self.overrides)
        settings, home = self.settings, prepare_environment()
        training_inputs.check_servers(settings, home)
        training_inputs.check_champion(settings)
        with launch.exit_on(DataError):
            # Of all steps, whatever becomes of the file.
            self.data_version = published.read_or_make(settings.data, home.data)
        data = training_inputs.load_data(settings, self.data_version)
        with launch.exit_on(DataError):
            report = check_dataset(data, settings.data)
        if settings.fit_budget is not None:
            settings = self.plan_for_budget(settings, data)
        self.collected = time.time()
        self.feedback = training_inputs.collect_feedback(settings, data)
        self.data_digest = data.digest
        self.git_commit = lineage.git_commit()
        self.tuning = "on" if settings.tuning.enabled else "off"
        self.machines = "one" if settings.resources.nodes == 1 else "several"
        self.study = f"{current.flow_name}-{current.run_id}"
        self.checkpoints = f"{current.flow_name}/{current.run_id}"  # a run that resumes this one keeps it

        with launch.exit_on(ConfigError, ServerUnavailable, StoreUnavailable):
            self.open_mlflow_run(settings, data)
        with launch.mlflow_run(self.experiment_id, self.mlflow_run_id):
            samples = frame.to_png(galleries.samples(data.train.images, data.train.labels, data.class_names))
            tracking.log_files(self.mlflow_run_id, {"data/samples.png": samples})
        summary = None if self.feedback is None else self.feedback.summary
        training_cards.show_data(current.card["data"], data, report, feedback=summary, samples=samples)
        print(f"{data.name} {data.digest[:12]}: {report.num_rows}")
        if summary is not None:
            print(summary)
        self.next({"on": self.plan, "off": self.train}, condition="tuning")

    @step
    def plan(self) -> None:
        """Create the study, and the workers that share it."""
        from fashion.training import tuning
        from fashion.training.study_storage import StudyUnavailable

        settings = self.settings
        with (
            launch.mlflow_run(self.experiment_id, self.mlflow_run_id, connected=False),
            launch.exit_on(StudyUnavailable),
        ):
            tuning.create_study(current_home().studies, self.study)
        self.workers = list(range(settings.tuning.num_workers))
        self.next(self.tune, foreach="workers")

    @trial_resources
    @retry(times=3, minutes_between_retries=0)
    @step
    def tune(self) -> None:
        """Run this worker's share of the trials."""
        from fashion.training import tuning
        from fashion.training.objective import Objective
        from fashion.training.study_storage import StudyUnavailable

        settings = self.settings
        with (
            launch.mlflow_run(self.experiment_id, self.mlflow_run_id, connected=False),
            launch.exit_on(ConfigError, StudyUnavailable),
        ):
            data = training_inputs.load_training_data(settings, self.data_version, self.feedback)
            objective = Objective(settings, data, report=functools.partial(print, flush=True))
            tuning.work(current_home().studies, self.study, self.input, settings, objective)
        self.next(self.collect)

    @card(type="blank", id="study")
    @retry(times=2, minutes_between_retries=0)
    @step
    def collect(self, workers: Any) -> None:
        """Choose the values to train with, and log every trial once."""
        from runtime import training_cards

        from fashion.registry import tracking
        from fashion.training import tuning
        from fashion.training.study_figures import study_figures
        from fashion.training.study_storage import StudyUnavailable

        self.merge_artifacts(workers, exclude=["workers"])
        settings = self.settings
        expected = (tuning.NothingCompleted, StudyUnavailable, StoreUnavailable)
        with launch.mlflow_run(self.experiment_id, self.mlflow_run_id), launch.exit_on(*expected):
            trials = tuning.trials(current_home().studies, self.study)
            choice = tuning.choose(trials, settings)
            tracking.log_trials(self.experiment_id, self.mlflow_run_id, tuning.to_tracked_trials(trials))
            files = study_figures(trials)
            tracking.log_files(self.mlflow_run_id, {f"tuning/{name}": content for name, content in files.items()})
        self.params = choice.params
        training_cards.show_study(current.card["study"], choice, num_trials=settings.tuning.num_trials, files=files)
        print(choice.reason)
        self.next(self.train)

    @card(type="blank", id="training", refresh_interval=2)
    @one_machine_resources
    @retry(times=2, minutes_between_retries=0)
    @step
    def train(self) -> None:
        """Train with the chosen values, from the last checkpoint where there is one, and export the network.

        If several machines are configured, `train_node` does that: Metaflow lets no join, as `collect` is, choose.
        """
        if self.machines == "one":
            self.fit_and_export()
        self.next({"one": self.evaluate, "several": self.distribute}, condition="machines")

    @step
    def distribute(self) -> None:
        """Start the machines that train one model together."""
        self.next(self.train_node, num_parallel=self.settings.resources.nodes)

    @card(type="blank", id="training", refresh_interval=2)
    @configured_resources
    @retry(times=2, minutes_between_retries=0)
    @parallel
    @step
    def train_node(self) -> None:
        """Train as one of several machines; the first one logs, stores checkpoints and exports."""
        self.fit_and_export()
        self.next(self.gather)

    @step
    def gather(self, machines: Any) -> None:
        """Keep what the first machine exported."""
        self.merge_artifacts(machines)
        self.next(self.evaluate)

    @card(type="blank", id="evaluation")
    @retry(times=2, minutes_between_retries=0)
    @step
    def evaluate(self) -> None:
        """Calibrate the network, score it on the test split, and log the model package."""
        from runtime import training_cards

        from fashion.data.checks import check_dataset
        from fashion.evaluation import run_record, scoring
        from fashion.registry import sender
        from fashion.storage.address import open_store

        settings = self.settings
        with launch.mlflow_run(self.experiment_id, self.mlflow_run_id), launch.exit_on(StoreUnavailable):
            store = open_store(f"{current_home().checkpoints}/{self.checkpoints}")
            sender.send_kept(store, self.mlflow_run_id)
            data = training_inputs.load_data(settings, self.data_version)
            evaluation = scoring.evaluate(
                self.exported,
                data,
                check_dataset(data, settings.data),
                data=settings.data,
                architecture=self.architecture,
                training={**self.training, "feedback": None if self.feedback is None else self.feedback.describe()},
                lineage=self.lineage,
            )
            self.model_uri = run_record.log_evaluation(self.mlflow_run_id, evaluation, data)
        self.metrics = {name: dataclasses.asdict(metric) for name, metric in evaluation.package.metrics.items()}
        self.summary = evaluation.summary
        training_cards.show_evaluation(current.card["evaluation"], evaluation)
        print(evaluation.summary)
        self.next(self.register)

    @card(type="blank", id="verdict")
    @retry(times=2, minutes_between_retries=0)
    @step
    def register(self) -> None:
        """Register the version, and promote it unless it is worse than the champion."""
        from runtime import training_cards

        from fashion.evaluation import registration
        from fashion.model.package import DamagedPackage
        from fashion.registry.versions import RegistryError

        settings = self.settings
        tags = {"summary": self.summary, "architecture": self.architecture["name"], "data.digest": self.data_digest}
        tags |= {} if self.feedback is None else {"feedback": self.feedback.summary}
        expected = (DamagedPackage, RegistryError, StoreUnavailable)
        with launch.mlflow_run(self.experiment_id, self.mlflow_run_id), launch.exit_on(*expected):
            data = training_inputs.load_data(settings, self.data_version)
            version, verdict = registration.register(
                self.model_uri,
                run_id=self.mlflow_run_id,
                name=settings.tracking.registered_model,
                tags={**tags, **self.lineage},
                splits=registration.gate_splits(data, self.feedback, min_feedback_rows=settings.gate.min_feedback_rows),
                settings=settings.gate,
            )
        self.version, self.promoted, self.verdict = version.number, verdict.promoted, dataclasses.asdict(verdict)
        self.outcome = registration.describe(version.number, verdict, name=settings.tracking.registered_model)
        if self.feedback is not None:
            with launch.exit_on(StoreUnavailable):
                self.record_learnt()
        training_cards.show_verdict(current.card["verdict"], version.number, self.outcome, verdict)
        self.next(self.end)

    @retry(times=2, minutes_between_retries=0)
    @step
    def end(self) -> None:
        """Print the outcome, and on a cluster let a bento of a new champion be built."""
        print(self.summary)
        print(self.outcome)
        if events.in_pod() and self.promoted and self.deploy:
            overrides = chaining.deploy_overrides(self.deploy_overrides, self.settings.tracking.registered_model)
            with launch.exit_on(events.EventsUnavailable):
                print(events.publish(events.DEPLOY, {"overrides": overrides}))

    def record_learnt(self) -> None:
        """Store that this run's feedback was learnt: until then it stays new, whatever becomes of a training."""
        from fashion.drift import retraining
        from fashion.storage.address import open_store

        model, store = self.settings.tracking.registered_model, open_store(current_home().reports)
        retraining.record_learnt(store, self.collected, model_name=model)

    def plan_for_budget(self, settings: TrainConfig, data: "Dataset") -> TrainConfig:
        """Choose what fits `fit_budget`, say so, and return the configuration of the run from here on."""
        from fashion.training import budget

        with launch.exit_on(ConfigError):
            plan = budget.plan(settings, data)
        self.configuration = as_dict(plan.config)
        print(plan.sentence)
        return plan.config

    def open_mlflow_run(self, settings: TrainConfig, data: "Dataset") -> None:
        """Open the MLflow run that all steps log to."""
        from fashion.evaluation import run_record
        from fashion.registry import open_runs, tracking

        self.experiment_id = tracking.get_or_create_experiment(current_home(), settings.tracking.experiment)
        open_runs.end_expired(self.experiment_id)
        self.mlflow_run_id = run_record.start(
            self.experiment_id,
            f"{settings.architecture.name} {current.run_id}",
            tags={
                "metaflow_run_id": f"{current.flow_name}/{current.run_id}",
                "git_commit": self.git_commit,
                "architecture": settings.architecture.name,
                "mlflow.source.name": "flows/train_flow.py",
                "mlflow.source.git.commit": self.git_commit,
            },
            params=self.configuration,
            version=self.data_version,
            dataset=data,
            feedback=self.feedback,
        )
        if (page := tracking.run_page(self.mlflow_run_id)) is not None:
            print(f"MLflow run: {page}")

    def fit_and_export(self) -> None:
        """Train, on all nodes of this step, and set the artifacts of the trained network on the first one."""
        from fashion.registry import system_metrics
        from fashion.storage.address import open_store
        from fashion.storage.servers import server_seconds
        from fashion.training import export, launcher, recipe
        from fashion.training.divergence import Diverged
        from fashion.training.progress import Watch
        from fashion.training.ranks import RankLost
        from fashion.training.search_space import with_params

        settings, home = with_params(self.settings, getattr(self, "params", {})), current_home()
        data = training_inputs.load_training_data(settings, self.data_version, self.feedback)
        checkpoints = f"{home.checkpoints}/{self.checkpoints}"
        expected = (ConfigError, Diverged, export.ExportDiffers, ServerUnavailable, StoreUnavailable)
        with (
            launch.exit_on(*expected, first=nodes.stop_other_nodes),
            launch.exit_on(RankLost, first=nodes.stop_other_nodes, code=launch.RETRY),
        ):
            ranks = nodes.this_node(settings.resources)
            if ranks.node > 0:
                launcher.train(settings, data, ranks=ranks, checkpoints=checkpoints)
                return
            with (
                launch.mlflow_run(self.experiment_id, self.mlflow_run_id),
                system_metrics.logged(self.mlflow_run_id),
            ):
                curves = cards.LiveCurves(current.card["training"], f"Training {settings.architecture.name}")
                watch = Watch(self.mlflow_run_id, data, settings, curves, report=functools.partial(print, flush=True))
                try:
                    trained = launcher.train(
                        settings,
                        data,
                        ranks=ranks,
                        checkpoints=checkpoints,
                        on_epoch=watch.epoch,
                        on_step=watch.step,
                        on_restored=watch.restored,
                        check=nodes.ended_node,
                    )
                finally:
                    watch.close(open_store(checkpoints), timeout_s=server_seconds())
                assert trained is not None  # None on other nodes only
                model, result = trained
                precision = settings.export.precision
                images = data.val.images[: export.COMPARED_ROWS]
                exported = export.export(model, images, mean=data.mean, std=data.std, precision=precision)
        self.exported = dataclasses.asdict(exported)
        self.architecture = as_dict(settings.architecture)
        self.training = recipe.describe(settings, result)
        self.history = [dataclasses.asdict(epoch) for epoch in result.history]

    @property
    def lineage(self) -> dict[str, str]:
        """Where a model of this run is from."""
        from fashion.registry import lineage

        commit = lineage.git_commit()
        return {
            "git_commit": self.git_commit,
            **({} if commit == self.git_commit else {"git_commit.resumed": commit}),
            "metaflow_run_id": f"{current.flow_name}/{current.run_id}",
            "mlflow_run_id": self.mlflow_run_id,
        }


if __name__ == "__main__":
    launch.run(TrainFlow, check=training_inputs.check_network)
