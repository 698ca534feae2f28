"""What a bento answers on pictures that it holds: a bento that answers something else is not served. Knows no model."""

from dataclasses import dataclass

DEPLOYMENT = "deployment.json"
"""File of a bento that says what it serves, and how; its list `known_answers` holds `KnownAnswer`s, as plain data."""
GALLERY = "gallery"
"""Folder of a bento with the pictures."""


@dataclass(frozen=True)
class KnownAnswer:
    """What the served version says of a picture of the gallery."""

    picture: str
    """Name of the file in the gallery's folder."""
    label: str
