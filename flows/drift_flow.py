"""Look at what was predicted lately: does it still look like what the model knows, and is it still right.

python flows/drift_flow.py run
python flows/drift_flow.py run rows=1000
python flows/drift_flow.py run since=2026-11-01 retrain.enabled=true
"""

from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import functools
import os
import tempfile
import time
from pathlib import Path

from metaflow import Config, FlowSpec, card, config_expr, current, package_sources, retry, schedule, step
from runtime import cards, launch

from fashion.config.compose import load_as, parse_overrides
from fashion.config.drift import DriftConfig


@schedule(cron=config_expr("config.cron"))
@package_sources([("../fashion", "fashion"), ("../configs", "configs")], suffixes=[".py", ".yaml", ".json"])
class DriftFlow(FlowSpec):
    """Prediction log -> decision -> report -> alerts -> retraining."""

    config = Config(
        "config",
        default_value=launch.words_from_environment,
        parser=functools.partial(launch.parse_config, kind=DriftConfig),
        help="configuration words, e.g. 'rows=1000 decision.alpha=0.001'",
    )

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self):
        """Read the window, and decide on each version in it."""
        from fashion.drift import inspection
        from fashion.drift.references import References
        from fashion.drift.result import empty_window
        from fashion.predictions import windows
        from fashion.registry import tracking

        settings = load_as(DriftConfig, self.config.to_dict())
        home = prepare_environment()
        tracking.connect(home)
        self.model = settings.tracking.registered_model
        self.now_us = time.time_ns() // 1000
        window = inspection.select_window(settings, clock=lambda: 1000 * self.now_us)
        self.remarks = []
        with tempfile.TemporaryDirectory() as folder, telling(settings, home):
            source = windows.open_source(home, settings.source)
            references = References(self.model, Path(folder))
            self.inspected = inspection.inspect(
                source.batches(window),
                references.stats,
                settings.decision,
                max_plot_rows=settings.report.rows,
                max_examples=settings.report.examples,
                on_rows=lambda rows: print(f"{rows:,} rows read", flush=True),
            )
            later = source.count_after(window)
        self.references = references.loaded
        if not self.inspected:
            empty = empty_window((window.since_us, min(window.until_us, self.now_us)), settings.decision)
            self.inspected = [inspection.Inspection(empty, None)]
        if len(self.inspected) > 1:
            served = ", ".join(each.result.model_version for each in self.inspected)
            self.remarks.append(f"Several versions answered in this window ({served}): each has a report of its own.")
        if later:
            self.remarks.append(
                f"{later:,} predictions are dated after this window, in the future: a clock was set back. They belong "
                "to a later window."
            )
        for each in self.inspected:
            print(f"version {each.result.model_version or '-'}: {each.result.decision}: {each.result.reason}")
        self.next(self.report)

    @card(type="blank", id="drift")
    @retry(times=2, minutes_between_retries=0)
    @step
    def report(self):
        """Draw what was found, and keep it where the monitoring page and MLflow show it."""
        from fashion.drift import evidently_report, report_examples, report_page, reports
        from fashion.drift.result import result_as_dict
        from fashion.registry import tracking
        from fashion.storage.address import open_store

        settings = load_as(DriftConfig, self.config.to_dict())
        home = prepare_environment()
        tracking.connect(home)
        experiment_id = tracking.get_or_create_experiment(home, f"{settings.tracking.experiment}-drift")
        store = open_store(home.reports)
        self.reports = []
        with telling(settings, home):
            history = reports.latest(store, settings.report.history, before_us=self.now_us)
            for found in self.inspected:
                result = found.result
                report_id = reports.make_id(self.now_us, result.model_version)
                version = self.references.get(result.model_version)
                drawings, examples = [], []
                if version is not None and found.sample is not None:
                    drawings = evidently_report.render(
                        found.sample, version.reference, version.stats(), alpha=result.alpha, total_rows=result.rows
                    )
                    examples = report_examples.load_examples(
                        found.unusual_rows, open_store(home.images), reference_pictures(settings, version.package)
                    )
                page = report_page.render(
                    found,
                    model=self.model,
                    class_names=version.package.class_names if version is not None else (),
                    reference=version.reference.predictions if version is not None else None,
                    examples=examples,
                    history=history,
                    evidently_pages=drawings,
                    remarks=self.remarks,
                )
                content = result_as_dict(result)
                reports.publish(store, report_id, page, content)
                digest = None if version is None else version.package.data["digest"]
                tracking.log_drift(experiment_id, report_id, content, page, data_digest=digest)
                self.reports.append(report_id)
                cards.framed(current.card["drift"], page)
        print(f"reports {', '.join(self.reports)} in {home.reports}")
        self.next(self.act)

    @retry(times=2, minutes_between_retries=0)
    @step
    def act(self):
        """Tell whom it concerns, and find out whether a new model is due."""
        from fashion.drift import alert_channels, alerts, report_page, retraining
        from fashion.predictions import windows
        from fashion.storage.address import open_store

        settings = load_as(DriftConfig, self.config.to_dict())
        home = prepare_environment()
        store = open_store(home.reports)
        latest = self.inspected[-1].result
        self.decision, self.conditions = latest.decision, sorted(latest.conditions)
        conditions = {"problem": None}
        where = f"{self.model} version {latest.model_version}, {latest.rows:,} predictions"
        for name in sorted(latest.testable & set(settings.alerts.on)):
            title, why = report_page.describe_condition(name, latest)
            found = (f"{title}: {where}", f"{why}.\nReport: {self.reports[-1]}")
            conditions[name] = found if name in latest.conditions else None
        channels = alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s)
        alerts.notify(conditions, channels, settings.alerts, store)
        with telling(settings, home):
            answer = retraining.decide(
                self.conditions, windows.open_source(home, settings.source).labelled(), settings.retrain, store
            )
        self.outcome = answer.reason
        self.retraining = "due" if answer.train else "not due"
        print(f"training {self.retraining}: {answer.reason}")
        self.next({"due": self.retrain, "not due": self.end}, condition="retraining")

    @step
    def retrain(self):
        """Train on what users taught, let the gate decide, and build a bento of a new champion."""
        from fashion.drift import retraining
        from fashion.storage.address import open_store

        settings = load_as(DriftConfig, self.config.to_dict())
        retraining.record_start(open_store(current_home().reports))
        if launch.on_cluster():
            self.outcome = launch.publish_event(launch.RETRAIN, {"report": self.reports[-1]})
        else:
            asked = parse_overrides(settings.retrain.overrides)
            words = [*asked, "feedback.use=true", f"tracking.registered_model={self.model}"]
            self.outcome = launch.train_and_deploy(words, settings.retrain)
        print(self.outcome)
        self.next(self.end)

    @step
    def end(self):
        """Say what came of it."""
        print(f"{self.decision}; {self.outcome}")


def reference_pictures(settings, served):
    """Pictures of the reference's rows with their predicted labels; None where that data set is not at hand."""
    from fashion.data import loading

    data = loading.load_training_data(settings.data, served.data["digest"], purpose="reference pictures")
    return None if data is None else data.val


def telling(settings, home):
    """End the task with one sentence where a log, a store or the registry fails, and with an alert if that is asked."""
    from fashion.drift import alert_channels, alerts
    from fashion.model import package
    from fashion.predictions.record import LogUnavailable
    from fashion.registry import versions
    from fashion.storage.address import open_store
    from fashion.storage.blobs import StoreUnavailable

    def alert(error):
        if "problem" in settings.alerts.on:
            channels = alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s)
            found = ("The drift flow cannot do its work", str(error))
            alerts.notify({"problem": found}, channels, settings.alerts, open_store(home.reports))

    unavailable = (LogUnavailable, StoreUnavailable)
    return launch.told(*unavailable, package.DamagedPackage, *versions.ERRORS, first=alert)


if __name__ == "__main__":
    with launch.alone("drift"):
        launch.run(DriftFlow, kind=DriftConfig)
