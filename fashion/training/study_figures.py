"""Optuna's plots of a study, as pictures and as one interactive page. Knows nothing of what was tuned."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

PLOTS = {
    "optimization_history": "Optimization history",
    "param_importances": "Parameter importances (PED-ANOVA)",
    "parallel_coordinate": "Parallel coordinates",
    "slice": "Slices: one parameter each",
}
"""Optuna's name of a plot -> a caption."""
VALUE = "validation accuracy"


def study_figures(trials: Sequence[FrozenTrial]) -> dict[str, bytes]:
    """Plot a study. A plot that Optuna cannot draw from so few trials is left out.

    Returns:
        File name -> content: a PNG for each plot, and `study.html` with all of them, interactive and offline.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna logs each new study
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)])
    files, pages = {}, []
    for name in PLOTS:
        options: dict[str, Any] = {"target_name": VALUE}
        if name == "param_importances":
            # PED-ANOVA needs no forest: importing scikit-learn costs more than the rest of the page.
            options["evaluator"] = PedAnovaImportanceEvaluator()
        try:
            files[f"{name}.png"] = _png(getattr(optuna.visualization.matplotlib, f"plot_{name}"), study, options)
            pages.append(getattr(optuna.visualization, f"plot_{name}")(study, **options))
        except (ValueError, RuntimeError, ZeroDivisionError, UserWarning):
            continue
    if pages:
        files["study.html"] = _page(pages)
    return files


def _png(plot: Callable[..., Any], study: optuna.Study, options: dict[str, Any]) -> bytes:
    import matplotlib

    matplotlib.use("agg")  # Optuna draws through pyplot, which looks for a screen
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # plots are experimental; colour bars do not suit tight_layout
            # Optuna would draw bars of equal length, which mean nothing.
            warnings.filterwarnings("error", message=".*importances will be equal")
            axes = plot(study, **options)
            is_row = hasattr(axes, "flat")
            figure = (axes.flat[0] if is_row else axes).figure
            figure.set_size_inches(max(10, 3 * len(figure.axes)) if is_row else 10, 4.5)
            if is_row:
                for part in axes.flat:
                    part.xaxis.set_minor_formatter(NullFormatter())  # labels of a log scale would overlap
            else:
                figure.tight_layout()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        return buffer.getvalue()
    finally:
        pyplot.close("all")


def _page(figures: Sequence[Any]) -> bytes:
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if index == 0 else False)
        for index, figure in enumerate(figures)
    ]
    return f"<!doctype html><meta charset='utf-8'><title>Study</title>{''.join(parts)}".encode()
