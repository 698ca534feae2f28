"""The frame of the pages that are rendered in Python: monitoring and API. Knows HTML, not what is on the pages."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
"""Stylesheets and scripts, which a service answers below `/page/`."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/page/base.css">
<link rel="stylesheet" href="/page/article.css">
{more}</head>
<body>
<header class="top">
<a class="mark" href="/"><img src="/page/icon.svg" alt="" width="28" height="28">{name}</a>
<nav aria-label="Pages">{links}</nav>
</header>
<main class="article">
<div class="hero"><h1>{title}</h1><p>{lead}</p></div>
"""


@dataclass(frozen=True)
class Site:
    """What the top of each page of a service shows."""

    name: str
    links: Mapping[str, str]
    """URL of each page, by its name."""


def page(
    site: Site,
    title: str,
    lead: str,
    body: Iterable[str],
    *,
    script: str | None = None,
    styles: Iterable[str] = (),
) -> str:
    """Render a whole page.

    Args:
        site: whose page it is.
        title: plain text.
        lead: HTML of the paragraph below the title.
        body: HTML of the sections.
        script: URL of a JavaScript module.
        styles: URLs of more stylesheets.
    """
    more = "".join(f'<link rel="stylesheet" href="{text(url)}">\n' for url in styles)
    more += "" if script is None else f'<script type="module" src="{text(script)}"></script>\n'
    head = HEAD.format(title=text(title), lead=lead, more=more, name=text(site.name), links=links(site))
    return head + "\n".join(body) + "\n</main>\n</body>\n</html>\n"


def links(site: Site) -> str:
    """The links to the pages of a service, as HTML."""
    return "".join(f'<a href="{text(url)}">{text(name)}</a>' for name, url in site.links.items())


def text(value: Any) -> str:
    """Escape any value as the text of a page."""
    return html.escape(str(value))
