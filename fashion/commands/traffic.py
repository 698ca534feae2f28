"""`fashion traffic`: simulated users of a running service."""

import sys
import time
from typing import Annotated

import typer

from fashion.commands.arguments import Overrides
from fashion.commands.errors import failing_on
from fashion.config.names import URL

TEST_ROWS_NOTE = "These were test rows: no training will learn from their feedback. Set some aside with data.live_rows."


def traffic(
    overrides: Overrides = None,
    url: Annotated[str, typer.Option(help="Address of the service.")] = URL,
    rows: Annotated[int, typer.Option(help="Pictures to send.")] = 1000,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT", show_default=False, help="Corruption; may be repeated. A wrong NAME lists all."
        ),
    ] = None,
    labels: Annotated[float, typer.Option(help="Share of them to give true labels for, 0 to 1.")] = 0.0,
    connections: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of which pictures are sent.")] = 0,
    predict_key: Annotated[
        str | None, typer.Option(envvar="FASHION_PREDICT_KEY", help="API key, where the service needs one.")
    ] = None,
    feedback_key: Annotated[
        str | None, typer.Option(envvar="FASHION_FEEDBACK_KEY", help="API key for feedback.")
    ] = None,
) -> None:
    """Send test pictures to the service, as users would.

    Corrupted by name where --shift says so, with true labels for a share of them."""
    from fashion.config.compose import compose
    from fashion.config.schema import ConfigError
    from fashion.config.train import load_train_config
    from fashion.data.manifest import DataError
    from fashion.predictions.labelled import TEST_ROWS
    from fashion.traffic.client import ServiceUnavailable, check_address
    from fashion.traffic.sampling import apply_shifts, parse_shift, sample_rows
    from fashion.traffic.sending import send

    with failing_on(ConfigError, DataError, ServiceUnavailable, ValueError):
        data = load_train_config(compose(overrides or [])).data
        shifts = [parse_shift(text) for text in shift or []]
        if rows < 1 or not 0 <= labels <= 1:
            raise ValueError(f"--rows must be at least 1 and --labels between 0 and 1, got {rows}, {labels}")
        check_address(url, predict_key, feedback_key)
        progress = _Progress(rows)
        sampled, source = sample_rows(data, rows, seed=seed)
        try:
            summary = send(
                apply_shifts(sampled.images, shifts, seed=seed),
                sampled.labels,
                url=url,
                class_names=data.class_names,
                label_share=labels,
                source=source,
                predict_key=predict_key,
                feedback_key=feedback_key,
                connections=connections,
                seed=seed,
                on_row=progress.show,
            )
        finally:
            progress.end_line()
    print(summary)
    if source == TEST_ROWS and summary.labelled:
        print(TEST_ROWS_NOTE)


class _Progress:
    """One line on stderr, renewed five times a second."""

    def __init__(self, total: int) -> None:
        self._total, self._started, self._shown = total, time.monotonic(), 0.0

    def show(self, count: int) -> None:
        """Show how many rows are done."""
        now = time.monotonic()
        if now - self._shown > 0.2 or count == self._total:
            self._shown = now
            rate = count / max(1e-9, now - self._started)
            print(f"\r{count:,} of {self._total:,}, {rate:,.0f} per second ", end="", file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Go to a new line, where one was begun."""
        if self._shown:
            print(file=sys.stderr)
