"""Build the documentation's site in build/docs/site: `make docs`. Knows pages and links, not what the pages say.

The pages are docs/ and the README, which is the home page. Links that lead out of docs/ become links to copies of
those files in the site, and the reference is made of the code. Zensical builds in strict mode; `links` checks the site.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site import links, reference, sources
from fashion.home import REPOSITORY

DOCS = REPOSITORY / "docs"
BUILD = REPOSITORY / "build" / "docs"
PAGES = BUILD / "pages"
SITE = BUILD / "site"
PICTURES = (".png", ".svg")
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""Target of a Markdown link, and its anchor."""
UNUSED = re.compile(r"<script src=\"?https://unpkg\.com/[^>]*></script>")
"""A script that Zensical names for search in pages that are opened as files; the site asks no other host."""


def stage() -> list[Path]:
    """Put all pages together, and return the files of the repository that they link to."""
    shutil.rmtree(PAGES, ignore_errors=True)
    linked: set[Path] = set()
    for path in sorted(DOCS.rglob("*")):
        where = PAGES / path.relative_to(DOCS)
        if path.suffix in PICTURES:
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, where)
        elif path.suffix == ".md":
            _write(where, relink(path.read_text(), path, where, linked))
        elif path.suffix == ".ipynb":
            _write(where.with_suffix(".md"), notebook_page(json.loads(path.read_text())))
    readme = REPOSITORY / "README.md"
    _write(PAGES / "index.md", relink(readme.read_text(), readme, PAGES / "index.md", linked))
    library = reference.library()
    for name, text in (reference.pages() | library).items():
        _write(PAGES / "reference" / name, text)
    entries = "\n".join(f'      {{ "{Path(name).stem}" = "reference/{name}" }},' for name in library)
    shutil.copy(DOCS / "site" / "extra.css", PAGES)
    config = (DOCS / "site" / "zensical.toml").read_text().replace("#LIBRARY", entries)
    (BUILD / "zensical.toml").write_text(config)
    return sorted(linked)


def relink(text: str, path: Path, where: Path, linked: set[Path]) -> str:
    """Point the links of a page to where their targets are in the site.

    Args:
        text: of the page.
        path: of the page in the repository.
        where: the page is put.
        linked: files and folders outside docs/ that the page links to are added to it.

    Raises:
        SystemExit: a target does not exist.
    """

    def target(match: re.Match[str]) -> str:
        aim = Path(os.path.normpath(path.parent / match[1]))
        if not aim.exists():
            raise SystemExit(f"error: {path.relative_to(REPOSITORY)} links to {match[1]}, which does not exist")
        if aim == REPOSITORY / "README.md":
            placed = PAGES / "index.md"
        elif aim.is_relative_to(DOCS) and aim.suffix in (".md", ".ipynb", *PICTURES):
            placed = (PAGES / aim.relative_to(DOCS)).with_suffix(".md" if aim.suffix == ".ipynb" else aim.suffix)
        else:
            linked.add(aim)
            placed = PAGES / sources.place(aim.relative_to(REPOSITORY), is_folder=aim.is_dir())
        return os.path.relpath(placed, where.parent) + (match[2] or "")

    return LINK.sub(target, text)


def notebook_page(notebook: dict[str, list[dict[str, object]]]) -> str:
    """A notebook as Markdown: its text, its code and what the code printed."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])  # type: ignore[arg-type]
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):  # type: ignore[attr-defined]
            shown = output.get("text") or output.get("data", {}).get("text/plain", [])
            parts.append(f"```text\n{''.join(shown).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Build the site, and return the exit code."""
    linked = stage()
    shutil.rmtree(SITE, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    if subprocess.run([zensical, "build", "--strict", "--clean"], cwd=BUILD).returncode != 0:
        return 1
    sources.write(linked, REPOSITORY, SITE)
    for page in SITE.rglob("*.html"):
        page.write_text(UNUSED.sub("", page.read_text()))
    problems = links.check(SITE)
    print("\n".join(problems) or f"{SITE / 'index.html'}: {len(list(SITE.rglob('*.html')))} pages, every link holds")
    return 1 if problems else 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
