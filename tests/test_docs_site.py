"""The checks and the parts of the documentation's site that need no build: `make docs` builds it, before the tests."""

import json
from pathlib import Path

import pytest

from docs.site import build, links, reference
from fashion.home import REPOSITORY


def test_broken_links_missing_anchors_and_other_hosts_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there"></a><a href="b.html#gone"></a><a href="c.html"></a>'
        '<a href="https://example.org/x"></a><img src="missing.png"><script src=https://cdn.example.org/x.js></script>'
        '<a href="#top"></a><a href="#bottom"></a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1>')
    assert links.check(tmp_path) == [
        "a.html loads https://cdn.example.org/x.js from another host",
        "a.html links to b.html#gone: the page has no such anchor",
        "a.html links to c.html: there is no such file",
        "a.html links to missing.png: there is no such file",
        "a.html links to #bottom: the page has no such anchor",
    ]


def test_links_out_of_the_docs_lead_to_copies() -> None:
    linked: set[Path] = set()
    page = REPOSITORY / "docs" / "explanation" / "gate.md"
    text = "[a](../../fashion/evaluation/gate.py) [b](log.md#deleting) [c](https://example.org) [d](../../README.md)"
    placed = build.relink(text, page, build.PAGES / "explanation" / "gate.md", linked)
    assert placed == (
        "[a](../source/fashion/evaluation/gate.py.html) [b](log.md#deleting) [c](https://example.org) [d](../index.md)"
    )
    assert linked == {REPOSITORY / "fashion" / "evaluation" / "gate.py"}


def test_a_link_to_nothing_is_one_sentence() -> None:
    page = REPOSITORY / "docs" / "tutorial.md"
    with pytest.raises(SystemExit, match=r"^error: docs/tutorial.md links to gone.md, which does not exist$"):
        build.relink("[x](gone.md)", page, build.PAGES / "tutorial.md", set())


def test_every_key_of_the_configuration_has_a_meaning() -> None:
    rows = [line for line in reference.configuration().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_command_has_its_help() -> None:
    shown = reference.commands()
    for heading in ("## make", "## fashion status", "### fashion registry rollback", "### fashion log forget"):
        assert heading in shown
    assert "error:" not in shown


def test_a_notebook_becomes_a_page() -> None:
    notebook = json.loads((REPOSITORY / "docs" / "notebooks" / "champion.ipynb").read_text())
    page = build.notebook_page(notebook)
    assert page.startswith("# Load the champion in five lines\n")
    assert page.count("```python") == 3
