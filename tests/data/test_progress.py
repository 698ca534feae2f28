"""Progress in a terminal and in a log file."""

import io
import time

from fashion.data.progress import TerminalReporter


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_stays_on_one_line_of_a_terminal() -> None:
    screen = Screen()
    terminal = TerminalReporter(screen)
    time.sleep(0.11)
    terminal.progress("10%")
    terminal.progress("11%")  # too soon to be worth drawing
    terminal.say("done")
    assert screen.getvalue() == "\r\x1b[2K10%\r\x1b[2Kdone\n"


def test_progress_is_a_line_every_few_seconds_in_a_log() -> None:
    log = io.StringIO()
    terminal = TerminalReporter(log, seconds_between_lines=0.05)
    terminal.progress("1%")
    time.sleep(0.06)
    terminal.progress("50%")
    terminal.progress("51%")
    terminal.say("done")
    assert log.getvalue() == "50%\ndone\n"
