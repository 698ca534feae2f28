"""Measure and print: `python -m tests.benchmarks [NAME ...]`. No time passes or fails; a wrong answer does."""

import argparse
import ast
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fashion.home import REPOSITORY
from tests.benchmarks.measurement import ServingOptions, circumstances

NAMES = (
    *(
        "loader",
        "loop",
        "flow_overhead",
        "time_to_accuracy",
        "distributed",
        "budget",
        "leaderboard",
        "accuracy",
        "recipes",
        "imbalance",
        "robustness",
    ),
    *(
        "serving",
        "request",
        "inference",
        "batch",
        "telemetry",
        "soak",
        "switches",
        "uploads",
        "drift_power",
        "severity",
        "prediction_sets",
        "canary",
        "drift_scale",
        "monitoring_page",
        "typicality",
        "cost",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks that were named, or all."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]}; there is {', '.join(NAMES)}")
    if arguments.list:
        print(_described())
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CPU-seconds do not measure a GPU
    import torch

    torch.set_num_threads(1)
    options = ServingOptions(
        quick=arguments.quick,
        seeds=tuple(arguments.seeds),
        epochs=tuple(arguments.epochs),
        python=arguments.python,
        home=arguments.home,
        minutes=arguments.minutes,
        shared_log=arguments.shared_log,
        measurements=arguments.measurements,
    )
    conditions = circumstances()
    for name, value in conditions.items():
        print(f"- {name}: {value}")
    print(flush=True)
    found = []
    for name in arguments.names or NAMES:
        for table in importlib.import_module(f"tests.benchmarks.{name}").tables(options):
            print(table.markdown(), flush=True)
            found.append({"benchmark": name, **table.plain()})
    print(f"load average at the end: {circumstances()['load average']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"circumstances": conditions, "tables": found}, indent=1))


def _parser() -> argparse.ArgumentParser:
    own = REPOSITORY / ".venv" / "bin" / "python"
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure speed beside the usual alternatives; all benchmarks where none is named.",
        epilog=f"benchmarks:\n{_described()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see the list below")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and end")
    parser.add_argument("--quick", action="store_true", help="run as little as shows that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement too")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[42],
        help="of accuracy, time_to_accuracy, leaderboard, recipes, robustness and imbalance; default 42",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=[2, 3, 4, 6, 8],
        help="budgets of time_to_accuracy; recipes uses the first; default 2 3 4 6 8",
    )
    parser.add_argument(
        "--python",
        # Lightning beside Fabric makes its import seconds slower: the flow runs without, as users run it.
        default=str(own) if own.exists() else sys.executable,
        help="interpreter that runs the flows; default: the one of .venv",
    )
    parser.add_argument(
        "--home",
        type=Path,
        metavar="FOLDER",
        help="whose champion serving, soak, switches, uploads and drift_* use, e.g. var; by default one is trained, "
        "for a minute",
    )
    parser.add_argument("--minutes", type=float, default=10, help="of soak; default 10")
    logs = ("firestore", "postgresql")
    parser.add_argument("--shared-log", choices=logs, default="firestore", help="of soak; default firestore")
    parser.add_argument("--measurements", type=Path, metavar="FILE", help="of cost: what docs/cost.md is made from")
    return parser


def _described() -> str:
    lines = []
    for name in NAMES:
        text = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or ""
        lines.append(f"  {name:<17} {text.splitlines()[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
