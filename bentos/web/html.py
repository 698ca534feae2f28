"""The frame of the pages that are written here: monitoring and API. Knows HTML, not what is on them."""

import html
from collections.abc import Iterable
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/page/page.css">
<link rel="stylesheet" href="/page/sheet.css">
</head>
<body>
<header class="top">
<a class="mark" href="/"><img src="/page/icon.svg" alt="" width="28" height="28">Fashion classifier</a>
<nav aria-label="Pages"><a href="/monitoring">Monitoring</a><a href="/docs">API</a></nav>
</header>
<main class="sheet">
<div class="hero"><h1>{title}</h1><p>{lead}</p></div>
"""


def sheet(title: str, lead: str, body: Iterable[str]) -> str:
    """A whole page; `lead` and `body` are HTML."""
    return HEAD.format(title=text(title), lead=lead) + "\n".join(body) + "\n</main>\n</body>\n</html>\n"


def text(value: Any) -> str:
    """Any value as text of a page."""
    return html.escape(str(value))
