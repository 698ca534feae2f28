"""Optuna's own plots of a study, as pictures and as one interactive page. Knows nothing of what was tuned."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

PLOTS = ("optimization_history", "param_importances", "parallel_coordinate", "slice")


def study_figures(trials: Sequence[FrozenTrial]) -> dict[str, bytes]:
    """File name -> content: a PNG for each plot, and `study.html` with all of them to explore, offline.

    A plot that Optuna cannot draw of so few trials is left out.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)])
    files, pages = {}, []
    for name in PLOTS:
        try:
            files[f"{name}.png"] = _png(getattr(optuna.visualization.matplotlib, f"plot_{name}"), study)
            pages.append(getattr(optuna.visualization, f"plot_{name}")(study))
        except (ValueError, RuntimeError, ZeroDivisionError):
            continue
    if pages:
        files["study.html"] = _page(pages)
    return files


def _png(plot: Callable[[optuna.Study], Any], study: optuna.Study) -> bytes:
    import matplotlib

    matplotlib.use("agg")  # Optuna draws through pyplot, which looks for a screen
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, says each plot
            axes = plot(study)
            figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
        width = 4 * len(figure.axes) if hasattr(axes, "flat") else 10
        figure.set_size_inches(max(10, width), 5)
        figure.tight_layout()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()
    finally:
        pyplot.close("all")


def _page(figures: Sequence[Any]) -> bytes:
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if index == 0 else False)
        for index, figure in enumerate(figures)
    ]
    return f"<!doctype html><meta charset='utf-8'><title>Study</title>{''.join(parts)}".encode()
