"""Write the leaderboard's page and its figure. Knows results, not how they were measured."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from fashion.figures.frame import BLUE, GRID, INK, MUTED, VERMILION, new_plot, to_png
from fashion.metrics.classification import wilson_interval
from fashion.storage.folder import write_atomically
from tests.benchmarks.leaderboard import Trained
from tests.benchmarks.measurement import Table

ROWS = 50_000
"""Training pictures of Fashion-MNIST."""
BEFORE = """\
## Beside others
The course project that this one goes on from (MLOpsGroup23/MLOps-Project) reports validation accuracy alone:
88.6 % at the end of the training that its report shows, and about 91 % for the best trials of its sweep, read off the
two figures of the report.

The authors of Fashion-MNIST list what others sent them, and say that they have not tested it; some of those rows:

| network | test accuracy, as sent in |
|---|---|
| human performance, 1,000 test pictures, no fashion expertise | 83.5 % |
| 2 Conv Layers with max pooling (Keras) | 87.6 % |
| XGBoost | 89.8 % |
| MLP 256-128-64 | 90.0 % |
| 2 Conv Layers net, fewer than 100,000 parameters | 92.5 % |
| HOG and SVM | 92.6 % |
| VGG16, 26 M parameters | 93.5 % |
| ResNet18, augmented | 94.9 % |
| DenseNet-BC, 768,000 parameters, augmented | 95.4 % |
| WRN-28-10, random erasing | 96.3 % |
| WRN40-4, 8.9 M parameters, augmented | 96.7 % |

Source: the README of zalandoresearch/fashion-mnist on GitHub. Those networks were trained for hours on GPUs.
"""


def write(path: Path, trained: Sequence[Trained], table: Table, conditions: Mapping[str, str], *, command: str) -> None:
    """Write the page, and the figure beside it.

    Args:
        path: of the page; the figure has the same name and the ending `.png`.
        trained: all trainings.
        table: what `summarize` makes of them.
        conditions: of the measurement.
        command: that writes this page.
    """
    best, last = table.rows[0], table.rows[-1]
    budget = trained[0].budget
    note = "\n".join(textwrap.wrap(table.note, 130))
    body = "\n".join(table.markdown().splitlines()[2:-2])
    lines = [
        "# Which network?",
        f"With {budget:g} s of one core each, {best['network']} has the highest test accuracy "
        f"({best['test accuracy']}), and {last['network']} the lowest ({last['test accuracy']}).",
        "",
        f"![Test accuracy of each network]({path.stem}.png)",
        "",
        body,
        "",
        note,
        *_unfinished(trained),
        "",
        "```sh",
        f"{command}",
        'make leaderboard ARGS="convnet resnet10t --seconds 30"   # others, also by their name in timm',
        "```",
        "Finished trainings are kept in var/leaderboard.json, and not repeated. Measured on a machine that other work",
        "shared, so that processor time is given and no wall-clock time: "
        + "; ".join(f"{name} {value}" for name, value in conditions.items() if name in ("CPU", "torch", "bfloat16"))
        + ".",
        "",
        BEFORE,
    ]
    write_atomically(path, "\n".join(lines).encode())
    write_atomically(path.with_suffix(".png"), figure(trained, table))


def _unfinished(trained: Sequence[Trained]) -> list[str]:
    """A sentence on networks that did not get to see each training picture once: their rank says little."""
    names = sorted({run.name for run in trained if run.epochs == 1 and run.rows < ROWS})
    if not names:
        return []
    return [
        "",
        f"The budget was too small for one pass over the {ROWS:,} training pictures with {', '.join(names)}: their",
        "accuracy is that of less than one epoch. Give more seconds before choosing among them.",
    ]


def figure(trained: Sequence[Trained], table: Table) -> bytes:
    """A PNG: a line for each network, the most accurate on top."""
    names = [str(row["network"]) for row in table.rows]
    best = table.rows[0]
    plot, axes = new_plot(
        7.5,
        0.5 * len(names) + 1.0,
        f"{best['network']} learns most in {trained[0].budget:g} seconds of one core",
        "Filled: test accuracy, mean of the seeds with its 95 % interval. Hollow: mean accuracy on shifted copies.",
    )
    for line, name in enumerate(names):
        runs = [run for run in trained if run.name == name]
        accuracy = sum(run.accuracy for run in runs) / len(runs)
        low, high = wilson_interval(round(accuracy * 10_000), 10_000)
        axes.plot([100 * low, 100 * high], [line, line], color=BLUE, linewidth=3, alpha=0.4)
        axes.plot(100 * accuracy, line, "o", color=BLUE, markersize=7)
        axes.plot(100 * sum(run.shifted for run in runs) / len(runs), line, "o", color=VERMILION, fillstyle="none")
        axes.annotate(
            f"{accuracy:.1%}",
            (100 * accuracy, line),
            (0, 8),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=8,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.set_xlabel("percent right", color=MUTED)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    return to_png(plot)
