"""Compare recent predictions with what the model was trained on, and their feedback with its accuracy.

python flows/drift_flow.py run
python flows/drift_flow.py run rows=1000
python flows/drift_flow.py run since=2026-11-01 until=2026-11-08
python flows/drift_flow.py run retrain.enabled=true
"""

from fashion.home import current_home, prepare_environment

prepare_environment()  # before metaflow, which reads its settings on import

import functools
import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow import Config, FlowSpec, card, config_expr, current, package_sources, project, retry, schedule, step
from runtime import cards, chaining, drift_alerts, events, launch, pods
from runtime.drift_alerts import exit_with_alert

from fashion.config.compose import parse_overrides
from fashion.config.drift import DriftConfig
from fashion.config.schema import DataConfig

if TYPE_CHECKING:
    from fashion.data.dataset import Split
    from fashion.drift.canary import News
    from fashion.drift.references import References, VersionReference
    from fashion.drift.report_examples import Example
    from fashion.drift.window_part import Inspection, WindowPart
    from fashion.model.package import Package
    from fashion.predictions.labelled import Believed
    from fashion.predictions.windows import Source, Window


@project(name=events.PROJECT)
@schedule(cron=config_expr("config.cron"))
@pods.Pods
@package_sources([("../fashion", "fashion"), ("../configs", "configs")], suffixes=[".py", ".yaml", ".json"])
class DriftFlow(FlowSpec):
    """Prediction log -> decision -> report -> alerts -> retraining."""

    config = Config(
        "config",
        default_value=launch.overrides_from_environment,
        parser=functools.partial(launch.parse_config, kind=DriftConfig),
        help="configuration overrides, e.g. 'rows=1000 decision.alpha=0.001'",
    )

    @property
    def settings(self) -> DriftConfig:
        """The configuration of this run."""
        return launch.stored_config(DriftConfig, self.config.to_dict())

    @retry(times=2, minutes_between_retries=0)
    @step
    def start(self) -> None:
        """Quarantine feedback of refuted sources, select the window, and decide where one task is to read it."""
        from fashion.drift import belief, catch_up, inspection
        from fashion.drift.references import References
        from fashion.predictions import windows
        from fashion.registry import tracking
        from fashion.storage.address import open_store

        settings, home = self.settings, prepare_environment()
        with exit_with_alert(settings):
            tracking.connect(home)
        self.model = settings.tracking.registered_model
        self.now_us = time.time_ns() // 1000
        asked = inspection.select_window(settings, clock=lambda: 1000 * self.now_us)
        with tempfile.TemporaryDirectory() as folder, exit_with_alert(settings):
            reports = open_store(home.reports)
            self.window = catch_up.widen(asked, settings, reports, model_name=self.model)
            self.is_longer = catch_up.runs_were_missed(asked, self.window)
            source = windows.open_source(home, settings.source)
            references = References(self.model, Path(folder), reports, open_store(home.images))
            self.trust, self.on_sources = belief.check_sources(source, references)
            self.windows = [self.window]
            if settings.workers > 1:
                self.windows = windows.divide(self.window, source.span(self.window), settings.workers)
            self.reading = "divided" if len(self.windows) > 1 else "whole"
            if self.reading == "whole":
                self.decide(source, [count_rows(source, self.window, references, settings)], references)
        self.next({"whole": self.report, "divided": self.divide}, condition="reading")

    @step
    def divide(self) -> None:
        """Give each part of the window to a task."""
        self.next(self.count, foreach="windows")

    @retry(times=2, minutes_between_retries=0)
    @step
    def count(self) -> None:
        """Count the rows of one part of the window."""
        from fashion.drift.references import References
        from fashion.predictions import windows
        from fashion.registry import tracking
        from fashion.storage.address import open_store

        settings, home = self.settings, prepare_environment()
        with tempfile.TemporaryDirectory() as folder, exit_with_alert(settings):
            tracking.connect(home)
            source = windows.open_source(home, settings.source)
            references = References(self.model, Path(folder), open_store(home.reports), open_store(home.images))
            self.part = count_rows(source, self.input, references, settings)
        self.next(self.join)

    @retry(times=2, minutes_between_retries=0)
    @step
    def join(self, counts: Any) -> None:
        """Add the parts up, and decide on each version in the window."""
        from fashion.drift.references import References
        from fashion.predictions import windows
        from fashion.registry import tracking
        from fashion.storage.address import open_store

        settings, home = self.settings, prepare_environment()
        self.merge_artifacts(counts, include=["model", "now_us", "window", "is_longer", "trust", "on_sources"])
        with tempfile.TemporaryDirectory() as folder, exit_with_alert(settings):
            tracking.connect(home)
            source = windows.open_source(home, settings.source)
            references = References(self.model, Path(folder), open_store(home.reports), open_store(home.images))
            self.decide(source, [each.part for each in counts], references)
        self.next(self.report)

    @card(type="blank", id="drift")
    @retry(times=2, minutes_between_retries=0)
    @step
    def report(self) -> None:
        """Write a report of each version, where the monitoring page and MLflow show it."""
        from fashion.drift import reports, verdict
        from fashion.drift.result import result_as_dict
        from fashion.registry import drift_runs, model_card, tracking, versions
        from fashion.storage.address import open_store

        settings, home = self.settings, prepare_environment()
        with exit_with_alert(settings):
            tracking.connect(home)
            experiment_id = tracking.get_or_create_experiment(home, f"{settings.tracking.experiment}-drift")
        store = open_store(home.reports)
        self.reports = []
        with exit_with_alert(settings):
            history = reports.latest(store, settings.report.history, before_us=self.now_us, model_name=self.model)
            for inspected in self.inspected:
                result, version = inspected.result, self.references.get(inspected.result.model_version)
                report_id = reports.make_id(self.now_us, self.model, result.model_version)
                page, copy, snapshots = self.render_report(inspected, version, history, report_id)
                content = result_as_dict(result)
                reports.publish(store, report_id, page, content, snapshots)
                digest = None if version is None else version.package.data["digest"]
                drift_runs.log_report(experiment_id, report_id, content, copy, data_digest=digest)
                if version is not None:
                    sentence = f"{verdict.headline(result)}: {result.reason}"
                    registered = versions.get(result.model_version, self.model)
                    model_card.write(registered, name=self.model, report=(report_id, sentence))
                self.reports.append(report_id)
                cards.append_page(current.card["drift"], copy)
        print(f"reports {', '.join(self.reports)} in {home.reports}")
        self.next(self.act)

    @retry(times=2, minutes_between_retries=0)
    @step
    def act(self) -> None:
        """Promote a canary or step back from it, send alerts, and decide whether a new model is due."""
        from fashion.drift import canary, catch_up, messages, retraining
        from fashion.predictions import windows
        from fashion.registry import tracking
        from fashion.storage.address import open_store

        settings, home = self.settings, prepare_environment()
        store = open_store(home.reports)
        results = [each.result for each in self.inspected]
        with exit_with_alert(settings):
            tracking.connect(home)
            source = windows.open_source(home, settings.source)
            news = self.settle_canary(source)
            # What a version on trial gets wrong is no reason to train: the comparison steps back from it.
            acting = [each for each in results if each.model_version not in news.on_trial] or results
            self.decision, self.conditions = acting[-1].decision, sorted(messages.acting_conditions(acting))
            reported = list(zip(results, self.reports, strict=True))
            drift_alerts.send_of_window(reported, self.trust.quarantined(), settings, news.outcomes)
            catch_up.record_end(self.window.until_us, settings, store, model_name=self.model)
            # After another write to the store of alerts: it holds what a channel did not take.
            canary.record_told(news, model_name=self.model)
            decision = retraining.decide(
                self.conditions,
                source.labelled(),
                settings.retrain,
                store,
                model_name=self.model,
                believed=self.believed(source),
                images=open_store(home.images),
            )
        self.outcome = decision.reason
        self.retraining = "due" if decision.train else "not due"
        print(f"training {self.retraining}: {decision.reason}")
        self.next({"due": self.retrain, "not due": self.end}, condition="retraining")

    @step
    def retrain(self) -> None:
        """Train on labelled feedback too, let the gate decide, and build a bento of a new champion."""
        from fashion.drift import retraining
        from fashion.storage.address import open_store

        settings = self.settings.retrain
        overrides, store = chaining.train_overrides(settings, self.model), open_store(current_home().reports)
        if events.in_pod():
            payload = {
                "overrides": shlex.join(overrides),
                "deploy": settings.deploy,
                "deploy_overrides": settings.deploy_overrides,
                "report": self.reports[-1],
            }
            with launch.exit_on(events.EventsUnavailable):
                self.outcome = events.publish(events.RETRAIN, payload)
            retraining.record_start(store, model_name=self.model, elsewhere=True)
        else:
            retraining.record_start(store, model_name=self.model)
            done = chaining.train_and_deploy(overrides, settings, self.model)
            self.outcome = done.sentence
            drift_alerts.send_of_training(done, self.settings)
        print(self.outcome)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Print the decision and the outcome."""
        print(f"{self.decision}; {self.outcome}")

    def settle_canary(self, source: "Source") -> "News":
        """Promote the canary or step back from it, where its labels suffice, and print the outcome."""
        from fashion.drift import canary

        decide = self.settings.canary == "decide"
        news = canary.act(source, self.trust, current_home(), model_name=self.model, decide=decide)
        for outcome in news.outcomes:
            print(f"canary: {outcome.ending}: {outcome.sentence}")
        return news

    def believed(self, source: "Source") -> "Believed":
        """Which feedback of the log may be learnt; asked for only where a training may follow."""
        from fashion.drift import belief
        from fashion.predictions.labelled import Believed
        from fashion.registry import tracking

        if not self.settings.retrain.enabled:
            return Believed(self.trust)
        tracking.connect(prepare_environment())
        # The overrides of the training say whether it may learn what was rolled back.
        may_learn = "feedback.rolled_back=learn" in parse_overrides(self.settings.retrain.overrides)
        return belief.believe(self.trust, source, model_name=self.model, rolled_back="learn" if may_learn else "block")

    def decide(self, source: "Source", parts: "list[WindowPart]", references: "References") -> None:
        """Decide on each version in the window, and print the decisions.

        Args:
            source: the log.
            parts: what was counted of the window's parts.
            references: of the model's versions.
        """
        from fashion.drift import context, inspection, late_labels
        from fashion.drift.result import empty_window
        from fashion.drift.reviews import Reviews
        from fashion.drift.window_part import Inspection
        from fashion.storage.address import open_store

        settings = self.settings
        late = late_labels.count(source, self.window, references.stats)
        reviews = Reviews.read(source, open_store(current_home().images))
        inspected, unjudged = inspection.decide([*parts, late.part], references.stats, settings.decision, reviews)
        if not inspected:
            span = (self.window.since_us, min(self.window.until_us, self.now_us))
            inspected = [Inspection(empty_window(self.model, span, settings.decision), None)]
        around = context.look_around(
            source,
            self.window,
            unjudged,
            references,
            now_us=self.now_us,
            due_us=launch.next_due_us(settings.cron, self.now_us),
            data="" if settings.data.model == DataConfig.model else settings.data.name,
        )
        self.inspected = [context.with_context(each, around, late.rows, references) for each in inspected]
        versions = {each.result.model_version for each in inspected}
        self.references = {name: loaded for name, loaded in references.loaded.items() if name in versions}
        longer_since_us = self.window.since_us if self.is_longer else None
        self.remarks = context.describe(self.inspected, around, longer_since_us=longer_since_us)
        self.remarks += [f"{each[0].upper()}{each[1:]}." for each in references.notes]
        self.remarks += [f"{each}." for each in self.on_sources]
        for each in self.inspected:
            print(f"version {each.result.model_version or '-'}: {each.result.decision}: {each.result.reason}")
        for line in (*([around.unjudged] if around.unjudged else []), *references.notes, *self.on_sources):
            print(line)

    def render_report(
        self,
        inspected: "Inspection",
        version: "VersionReference | None",
        history: "list[dict[str, object]]",
        report_id: str,
    ) -> tuple[str, str, dict[str, str]]:
        """A version's report as one HTML page, with plots and examples where there is a reference to compare with.

        Returns:
            The page, a copy without pictures of users, for where neither retention nor `fashion log forget` reach, and
            Evidently's snapshots by title.
        """
        from fashion.drift import evidently_report, report_page

        plots: list[evidently_report.EvidentlyPage] = []
        examples: list[Example] = []
        if version is not None and inspected.sample is not None:
            alpha, traffic = inspected.result.alpha, inspected.result.traffic
            rows = 0 if traffic is None else traffic.pictures
            plots = evidently_report.render(
                inspected.sample,
                version.reference,
                version.stats(),
                compared=version.compared,
                alpha=alpha,
                total_rows=rows,
            )
            examples = load_examples(inspected, version.package, self.settings)
        render = functools.partial(
            report_page.render,
            inspected,
            model=self.model,
            report_id=report_id,
            class_names=() if version is None else version.package.class_names,
            reference=None if version is None else version.compared,
            history=history,
            evidently_pages=plots,
            remarks=self.remarks,
        )
        return render(examples=examples), render(examples=()), {each.title: each.snapshot for each in plots}


def count_rows(source: "Source", window: "Window", references: "References", settings: DriftConfig) -> "WindowPart":
    """Count the rows of a window or of a part of one, by version.

    Args:
        source: the log.
        window: which of its rows.
        references: of the model's versions.
        settings: what to remember of the rows.
    """
    from fashion.drift import inspection

    return inspection.count(
        source.batches(window),
        references.stats,
        max_plot_rows=settings.report.rows,
        max_examples=settings.report.examples,
        on_rows=lambda rows: print(f"{rows:,} rows read", flush=True),
    )


def load_examples(inspected: "Inspection", package: "Package", settings: DriftConfig) -> "list[Example]":
    """The most unusual pictures, each beside a validation picture if the model's data set is available."""
    from fashion.data import loading
    from fashion.drift import report_examples
    from fashion.storage.address import open_store

    data = loading.load_training_data(settings.data, package.data["digest"], purpose="reference pictures")
    held_out: Split | None = None if data is None else data.val
    return report_examples.load_examples(inspected.unusual_rows, open_store(current_home().images), held_out)


if __name__ == "__main__":
    with launch.single_run("drift"):
        launch.run(DriftFlow, kind=DriftConfig, check=drift_alerts.check_what_follows)
