"""Copies of the repository's files in the site, with numbered lines, so that a link to the code works offline."""

import html
from collections.abc import Iterable
from pathlib import Path

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{style}
body {{ font-family: sans-serif; margin: 1rem; }} pre {{ overflow-x: auto; }}</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""


def place(path: Path, *, is_folder: bool) -> Path:
    """Where the copy of a file, or the list of a folder, is in the site.

    Args:
        path: from the repository's root.
        is_folder: True for a folder.
    """
    return Path("source", *path.parts, "index.html") if is_folder else Path("source", f"{path}.html")


def write(paths: Iterable[Path], root: Path, site: Path) -> None:
    """Write the copies.

    Args:
        paths: files and folders below `root`.
        root: of the repository.
        site: the folder of the built site.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import TextLexer, get_lexer_for_filename
    from pygments.util import ClassNotFound

    formatter = HtmlFormatter(linenos="inline", lineanchors="L")
    for path in paths:
        name = path.relative_to(root)
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
            body = "<ul>" + "".join(f"<li>{html.escape(str(each.relative_to(root)))}</li>" for each in found) + "</ul>"
        else:
            text = path.read_text()
            try:
                lexer = get_lexer_for_filename(path.name, text)
            except ClassNotFound:
                lexer = TextLexer()
            body = highlight(text, lexer, formatter)
        page = site / place(name, is_folder=path.is_dir())
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(PAGE.format(title=html.escape(str(name)), style=formatter.get_style_defs(), body=body))
