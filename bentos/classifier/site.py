"""The name, the words and the pages of the classifier's site. Knows nothing of what is on the pages."""

import functools
from pathlib import Path

from bentos.web import html
from bentos.web.html import Site
from fashion.config.schema import WordsConfig
from fashion.model.package import Package

LINKS = {"Monitoring": "/monitoring", "API": "/docs"}
REVIEW = {"Review": "/review"}
"""Before the others, where the page can be opened."""


def words_of(package: Package) -> WordsConfig:
    """How pages and API speak of a model's pictures; packages of older versions say nothing of it."""
    return WordsConfig(**package.data.get("words", {}))


def site_of(package: Package, *, has_review: bool) -> Site:
    """What the top of each page of a model's service shows.

    Args:
        package: of the model.
        has_review: whether labels can be given on a page.
    """
    return Site(words_of(package).title, {**(REVIEW if has_review else {}), **LINKS})


@functools.lru_cache(maxsize=4)
def render(page: Path, words: WordsConfig, links: str) -> str:
    """A page in the words of its data set: to try pictures with, or to review them.

    Args:
        page: HTML with any of `{{title}}`, `{{question}}`, `{{hint}}`, `{{subject}}` and `{{links}}` in it.
        words: plain text for them.
        links: HTML of the links to the other pages.
    """
    content = page.read_text(encoding="utf-8").replace("{{links}}", links)
    for name in ("title", "question", "hint", "subject"):
        content = content.replace(f"{{{{{name}}}}}", html.text(getattr(words, name)))
    return content
