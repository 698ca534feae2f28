"""Names of files and folders that operating systems and tools leave beside pictures. Knows names alone."""

from pathlib import PurePosixPath

NAMES = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information"),  # Windows
        *("__macosx", "lost+found", "#recycle", "@eadir", "__pycache__", "node_modules", "cvs"),
    }
)
"""In lower case. Names that begin with a dot, such as `.DS_Store`, `._a.png` and `.ipynb_checkpoints`, are junk too."""
BEGINNINGS = (".", "~$")
ENDINGS = ("~", ".part", ".partial", ".crdownload", ".tmp")
"""Of names in lower case: backups of editors, and downloads that did not end."""


def is_junk(path: str) -> bool:
    """True if a file, or a folder that it is in, is nobody's picture by its name.

    Args:
        path: relative, with `/` between its parts.
    """
    return any(_is_junk_name(part) for part in PurePosixPath(path).parts)


def _is_junk_name(name: str) -> bool:
    lower = name.casefold()
    return lower in NAMES or lower.startswith(BEGINNINGS) or lower.endswith(ENDINGS)
