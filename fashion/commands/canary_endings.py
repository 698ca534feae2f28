"""Tells services what a person's decision on the champion means for a canary. Knows no command."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashion.home import Home


def tell_services(home: "Home", name: str) -> None:
    """Store in the log how comparisons of canaries ended, after a person has changed the champion.

    Args:
        home: names the log that services read.
        name: of the registered model.
    """
    from fashion.drift.canary import publish
    from fashion.predictions.record import LogUnavailable

    try:
        publish(home, model_name=name)
    except LogUnavailable as error:  # the champion is changed all the same
        print(f"services learn it from the next run of the drift flow: {error}", file=sys.stderr)
