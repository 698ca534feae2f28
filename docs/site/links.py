"""Check a built site: every link and anchor leads somewhere, and no page loads anything from another host."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
"""Attributes whose address a browser fetches with the page."""
NOT_FETCHED = {"canonical", "prev", "next", "alternate"}
"""Relations of <link> that name a page and load nothing."""


class Page(HTMLParser):
    """The ids and the addresses of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect from one tag."""
        values = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        is_fetched = tag != "link" or values.get("rel") not in NOT_FETCHED
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.targets.append(value)
                if (tag, name) in LOADED and is_fetched:
                    self.loaded.append(value)


def check(site: Path) -> list[str]:
    """A sentence for each broken link, missing anchor, and file that would be loaded from another host."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    problems: list[str] = []
    for path, page in pages.items():
        name = path.relative_to(site)
        problems += [f"{name} loads {each} from another host" for each in page.loaded if urlsplit(each).netloc]
        if name.name == "404.html":
            continue  # its links are absolute: it is shown for any path
        for target in dict.fromkeys(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            aim = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if aim.is_dir():
                aim /= "index.html"
            if not aim.is_file():
                problems.append(f"{name} links to {target}: there is no such file")
            elif parts.fragment and aim in pages and unquote(parts.fragment) not in pages[aim].ids:
                problems.append(f"{name} links to {target}: the page has no such anchor")
    return problems
