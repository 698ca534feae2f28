"""Every command in the README and in docs/ is understood by the program it names, and every file named there exists.

Commands are checked, not run: by the parsers of the command line, of make, of the shell and of the configuration. Those
of the tutorial are also run, by the tests of `RUN_BY`.
"""

import importlib.util
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import reliability
from support.machine import Machine
from typer.testing import CliRunner

from fashion.commands.main import app
from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.config.serve import ServeConfig
from fashion.config.train import TrainConfig
from fashion.home import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:make|fashion) [a-z][^`]*)`")
FOREIGN = {
    *("argo", "bentoml", "cd", "createdb", "curl", "docker", "export", "firebase", "gcloud", "git", "journalctl"),
    *("kubectl", "openssl", "systemctl"),
}
"""Programs of others: their commands are checked by the shell's parser only."""
FLOWS = {"train_flow.py": TrainConfig, "deploy_flow.py": ServeConfig, "drift_flow.py": DriftConfig}
"""Flow -> what its overrides change."""
SAMPLES = {"=P": "=my-project", "=R": "=europe-west1"}
"""What stands for a project and a region -> an example of it."""
RUN_BY = {
    "make train": "tests/flows/test_train_flow.py::test_every_step_runs_and_the_flow_succeeds",
    "fashion registry list": "tests/test_docs.py::test_versions_are_listed_promoted_and_rolled_back",
    "card view": "tests/flows/test_train_flow.py::test_cards_show_the_step",
    "make serve": "tests/service/test_serving_command.py::test_a_new_bento_never_costs_an_answer",
    "curl -F": "tests/test_docs.py::test_the_picture_of_the_tutorial_is_what_the_service_takes",
    "fashion traffic": "tests/traffic/test_traffic.py::test_the_command_corrupts_pictures",
    "make drift": "tests/flows/test_drift_flow.py::test_usual_pictures_are_no_drift",
    "make demo": "tests/flows/test_drift_flow.py::test_it_ends_with_a_table_and_links_that_lead_somewhere",
}
"""Part of a command of the tutorial -> the test that runs it, or what the target runs."""


@dataclass(frozen=True)
class Command:
    """A command as a page shows it."""

    page: str
    words: tuple[str, ...]
    """As the shell divides it, without variables before it."""
    variables: tuple[str, ...] = ()
    """NAME=value before it."""

    @property
    def line(self) -> str:
        """As it could be typed."""
        return shlex.join([*self.variables, *self.words])


def to_command(page: Path, words: list[str]) -> Command:
    """Divide words into variables and the command."""
    start = next((at for at, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return Command(str(page.relative_to(REPOSITORY)), tuple(words[start:]), tuple(words[:start]))


def commands_of(page: Path, block: str) -> Iterator[Command]:
    """The commands of a block, without comments; those joined by && or | are several."""
    for line in block.replace("\\\n", " ").splitlines():
        shown = line.removeprefix("$ ").split("  #")[0].strip()
        if not shown or shown.startswith("#"):
            continue
        lexer = shlex.shlex(shown, posix=True, punctuation_chars="|&")
        lexer.whitespace_split, lexer.commenters = True, ""
        for is_operator, words in itertools.groupby(lexer, lambda word: word in ("|", "&&")):
            if not is_operator:
                yield to_command(page, list(words))


BLOCKS = [(page, block) for page in PAGES for block in BLOCK.findall(page.read_text())]
COMMANDS = [command for page, block in BLOCKS for command in commands_of(page, block)]
INLINES = [to_command(page, shlex.split(line)) for page in PAGES for line in INLINE.findall(page.read_text())]


def containing(text: str) -> list[Command]:
    """Commands of any page with some text."""
    return [command for command in COMMANDS if text in command.line]


def test_pages_have_commands_and_each_is_of_a_kind_that_is_checked() -> None:
    assert len(COMMANDS) > 100
    unknown = [
        each
        for each in COMMANDS
        if each.words
        and each.words[0] not in FOREIGN
        and each.words[0] not in ("make", ".venv/bin/fashion", ".venv/bin/python", ".venv/bin/mlflow")
    ]
    assert unknown == []


def test_the_shell_can_read_every_block() -> None:
    for page, block in BLOCKS:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}: {done.stderr}\n{block}"


def test_every_command_of_fashion_has_the_verbs_and_options_of_the_pages() -> None:
    runner, problems = CliRunner(), []
    shown = [each for each in COMMANDS if each.words[:1] == (".venv/bin/fashion",)]
    for each in [*shown, *(each for each in INLINES if each.words[0] == "fashion")]:
        # With --help at the end nothing is done; a verb or option that does not exist is a usage error still.
        result = runner.invoke(app, [*each.words[1:], "--help"], prog_name="fashion")
        if result.exit_code != 0:
            problems.append(f"{each.page}: {each.line}: {result.output}")
    assert len(shown) > 30
    assert problems == []


def test_make_knows_every_target_of_the_pages() -> None:
    shown = [each for each in COMMANDS if each.words[:1] == ("make",)]
    inline = [each for each in INLINES if each.words[0] == "make"]
    assert len(shown) > 15
    for words in {tuple(each.words[1:]) for each in [*shown, *inline]}:
        done = subprocess.run(["make", "--dry-run", *words], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, f"make {shlex.join(words)}: {done.stderr}"


def test_flows_take_the_configuration_of_the_pages() -> None:
    shown = [each for each in COMMANDS if re.search(r"flows/\w+\.py run", each.line)]
    assert len(shown) > 15
    for each in shown:
        flow = Path(each.words[1]).name
        given = [name.removeprefix("HYDRA_ARGS=") for name in each.variables if name.startswith("HYDRA_ARGS=")]
        words = [*each.words[3:], *shlex.split(" ".join(given))]
        if "augmentation.noise" not in each.line and "patchnet" not in each.line and "nadam" not in each.line:
            # Those are of the examples in docs/how-to: see test_how_to.py.
            words = [word for word in words if not word.startswith(("data=", "data.root=", "data.size="))]
            words = [word[:-2] + SAMPLES.get(word[-2:], word[-2:]) for word in words]
            load_as(FLOWS[flow], compose(words, root=FLOWS[flow].root))


def test_modules_and_code_of_the_pages_exist() -> None:
    for each in [each for each in COMMANDS if each.words[:1] == (".venv/bin/python",)]:
        if each.words[1] == "-m":
            assert importlib.util.find_spec(each.words[2]) is not None, each
        elif each.words[1] == "-c":
            compile(each.words[2], each.page, "exec")
        else:
            assert (REPOSITORY / each.words[1]).exists(), each


def test_variables_of_the_pages_are_read_somewhere() -> None:
    folders = ("fashion", "flows", "bentos", "tests/benchmarks", "configs/deploy")
    code = "".join(
        path.read_text()
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    )
    for page in PAGES:
        for name in set(re.findall(r"\bFASHION_[A-Z_]+[A-Z]\b", page.read_text())):
            assert name in code, f"{page.relative_to(REPOSITORY)}: {name}"


def test_every_command_of_the_tutorial_is_run_by_a_test() -> None:
    tutorial = [each for each in COMMANDS if each.page == "docs/tutorial.md" and each.words[0] not in ("cd", "git")]
    assert len(tutorial) > 8
    for each in tutorial:
        tests = [test for part, test in RUN_BY.items() if part in each.line]
        assert tests, f"{each.line}: name the test that runs it in RUN_BY"
        path, _, name = tests[0].partition("::")  # or the beginning of its name
        assert f"def {name}" in (REPOSITORY / path).read_text(), tests[0]


def test_the_picture_of_the_tutorial_is_what_the_service_takes() -> None:
    from fashion.images.preparation import prepare

    (name,) = {re.search(r"image=@(\S+)", each.line)[1] for each in containing("curl -F")}  # type: ignore[index]
    assert prepare((REPOSITORY / name).read_bytes(), size=28, channels=1).image.shape == (28, 28)


def test_the_table_of_faults_is_that_of_the_tests() -> None:
    assert reliability.PAGE.read_text() == reliability.page(), "run .venv/bin/python -m tests.support.reliability"
    marks = [re.findall(r"pytest\.mark\.fault\(", path.read_text()) for path in REPOSITORY.glob("tests/**/test_*.py")]
    assert len(reliability.promises()) == sum(map(len, marks)) > 100  # also those inside pytest.param


def test_flows_have_the_other_verbs_of_the_pages(challenged: Machine) -> None:
    of_flows = containing(".venv/bin/python flows/")
    verbs = {(each.words[1], each.words[2]) for each in of_flows if each.words[2:3] not in ((), ("run",))}
    assert ("flows/train_flow.py", "resume") in verbs
    for flow, verb in sorted(verbs):
        done = challenged.python(flow, verb, "--help")
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions_are_listed_promoted_and_rolled_back(challenged: Machine) -> None:
    verbs = ("list", "promote", "rollback")  # the others run in test_live_commands.py
    commands = [containing(f"fashion registry {verb}")[0].words[1:] for verb in verbs]
    results = [challenged.python("-m", "fashion", *words) for words in commands]
    assert [done.returncode for done in results] == [0, 0, 0], [done.stderr for done in results]
    listed, promoted, restored = (done.stdout for done in results)
    assert "version 1  champion" in listed
    assert "test accuracy" in listed
    assert promoted == "champion: version 2\n"
    assert restored == "champion: version 1\n"


def test_files_that_the_pages_point_to_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(REPOSITORY)}: {target}"


def test_files_that_the_glossary_names_exist() -> None:
    glossary = (REPOSITORY / "docs" / "glossary.md").read_text()
    paths = re.findall(r"`((?:fashion|bentos|configs)/[^`]*)`", glossary)
    assert len(paths) > 20
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_target_is_documented_in_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split():  # type: ignore[index]
        assert f"make {target}" in shown


def test_help_ends_by_naming_the_status_command() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert "fashion status" in [line for line in shown.splitlines() if not line.startswith("make[")][-1]
