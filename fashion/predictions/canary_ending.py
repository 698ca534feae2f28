"""How the comparison of a canary ended, as the log stores it: services have no registry. Knows no database."""

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fashion.predictions.record import DamagedLog, ModelId

if TYPE_CHECKING:
    from fashion.predictions.canary import Experiment


Kind = Literal["promoted", "stepped back"]


@dataclass(frozen=True)
class CanaryEnding:
    """That a canary was promoted, or stepped back from."""

    champion: ModelId
    canary: ModelId
    ended_us: int
    """When, microseconds since 1970, UTC: answers of after that are not compared."""
    kind: Kind
    reason: str
    """What the labels showed, or what a person said; ends without a full stop."""
    command: str
    """What to type next."""

    @property
    def name(self) -> str:
        """Names the pair of versions in a log: of each pair it holds the last ending."""
        return name_of(self.champion, self.canary)

    def is_of(self, experiment: "Experiment") -> bool:
        """Return True if this ended an experiment: of the same versions, begun before."""
        pair = (self.champion, self.canary)
        return pair == (experiment.champion, experiment.canary) and experiment.since_us <= self.ended_us

    def as_text(self) -> str:
        """Its fields as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_text(cls, text: str, address: str) -> "CanaryEnding":
        """Return what `as_text` has written.

        Args:
            text: of the log.
            address: of the log, for the message.

        Raises:
            DamagedLog: it is something else.
        """
        try:
            fields = json.loads(text)
            models = {role: ModelId(*fields[role]) for role in ("champion", "canary")}
            return cls(**{**fields, **models})
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedLog(
                f"{address} is damaged: a canary's ending cannot be read ({error}); delete it, and run the drift flow"
            ) from error


def name_of(champion: ModelId, canary: ModelId) -> str:
    """The name of two versions' comparison in a log.

    Args:
        champion: the version that answered the others.
        canary: the version that answered a share.
    """
    return f"canary {champion.digest} {canary.digest}"
