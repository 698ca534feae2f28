"""Say why the bytes of an upload are not a usable picture. Knows no HTTP: a code, a message and a remedy."""

from typing import Literal

Code = Literal["empty", "undecodable", "not_an_image", "too_large"]


class BadPicture(ValueError):
    """The bytes are not a picture that can be predicted on."""

    def __init__(self, code: Code, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


def too_large(message: str) -> BadPicture:
    """Return the error for a picture with too many pixels."""
    return BadPicture("too_large", message, "send a smaller picture: it is shrunk to a few pixels in any case")


def undecodable(reason: str) -> BadPicture:
    """Return the error for a damaged picture."""
    return BadPicture("undecodable", f"the picture cannot be decoded: {reason}", "send a whole, undamaged file")
