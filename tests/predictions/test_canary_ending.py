"""How a canary's comparison ended is stored in the log of one machine, and in the one that machines share."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import DamagedLog, ModelId
from fashion.predictions.shared_log import SharedLog

ONE, TWO, THREE = (ModelId("m", str(number), 16 * str(number)) for number in (1, 2, 3))
ENDING = CanaryEnding(ONE, TWO, 5000, "stepped back", "8 of 10 right", 'make bento ARGS="serve.canary=null"')


def experiment(**changed: Any) -> Experiment:
    return dataclasses.replace(Experiment(ONE, TWO, 0.1, 4000, 0.02, 0.95), **changed)


def store_and_read(log: PredictionLog | SharedLog) -> None:
    """What holds of every log."""
    assert log.canary_ending(ENDING.name) is None
    log.end_canary(ENDING)
    log.end_canary(ENDING)
    other = dataclasses.replace(ENDING, canary=THREE, kind="promoted")
    log.end_canary(other)
    assert (log.canary_ending(ENDING.name), log.canary_ending(other.name)) == (ENDING, other)
    later = dataclasses.replace(ENDING, ended_us=6000, kind="promoted")
    log.end_canary(later)
    assert log.canary_ending(ENDING.name) == later


def test_a_shared_log_holds_the_last_ending_of_each_pair_of_versions(remote: SharedLog) -> None:
    store_and_read(remote)
    assert list(remote.decisions()) == []  # versions of before endings read these, and know no others


def test_the_log_of_a_machine_holds_the_last_ending_of_each_pair_of_versions(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "log.db") as log:
        store_and_read(log)
    with PredictionLog(tmp_path / "log.db") as log:
        assert log.canary_ending(ENDING.name) is not None


def test_an_ending_is_of_what_began_before_it_with_the_same_versions() -> None:
    assert ENDING.is_of(experiment())
    assert ENDING.is_of(experiment(share=0.3, since_us=100))  # an earlier bento of the same two
    assert not ENDING.is_of(experiment(since_us=5001))
    assert not ENDING.is_of(experiment(canary=THREE))


def test_an_ending_that_somebody_edited_is_one_sentence(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "log.db") as log:
        for text in ("no JSON", "[]", '{"champion": ["m", "1", "1"]}'):
            row = (ENDING.name, text)
            log.database.write(lambda c, row=row: c.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", row))
            with pytest.raises(DamagedLog, match=r"log\.db is damaged: a canary's ending cannot be read .* run the"):
                log.canary_ending(ENDING.name)
