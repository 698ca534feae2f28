"""Which model a command is about: that of a data set, or the one of `--name`."""

import pytest

from fashion.commands.arguments import chosen_model, with_version
from fashion.commands.errors import CommandError
from fashion.commands.main import main


def test_a_data_set_names_its_model() -> None:
    assert chosen_model("fashion-classifier", []) == "fashion-classifier"
    assert chosen_model("mine", None) == "mine"
    assert chosen_model("fashion-classifier", ["data=mnist"]) == "mnist-classifier"
    assert chosen_model("mnist-classifier", ["data.root=mnist"]) == "mnist-classifier"


def test_two_models_are_refused() -> None:
    with pytest.raises(CommandError, match="give either data=mnist, whose model is mnist-classifier, or --name mine"):
        chosen_model("mine", ["data=mnist"])


def test_the_version_may_be_left_out() -> None:
    assert with_version("7", ["data=mnist"]) == ("7", ["data=mnist"])
    assert with_version("data=mnist", None) == ("champion", ["data=mnist"])


def test_the_tag_of_a_data_set_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--tag", "data.root=mnist"]) == 0
    assert main(["serve", "--tag"]) == 0
    assert capsys.readouterr().out == "mnist-classifier:latest\nfashion-classifier:latest\n"


@pytest.mark.parametrize(
    "words",
    [["list"], ["history"], ["show"], ["promote", "1", "--reason", "x"], ["compare"], ["replay", "--version", "1"]],
)
def test_an_unknown_data_set_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", *words, "data=nothing"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: data=nothing: no such option; data is one of cifar10, emnist")
    assert len(err.splitlines()) == 1
