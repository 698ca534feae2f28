"""Forms that are cut at their boundaries have the parts that the library reads."""

import random

import pytest

from bentos.web import uploads
from bentos.web.responses import ApiError
from bentos.web.uploads import PLAIN_BYTES, Part, read_parts

PLAIN = "multipart/form-data; boundary=B"
QUOTED = 'multipart/form-data; boundary="B"'
"""The same boundary, in a form that the library reads."""
HEADS = (
    b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png',
    b'content-disposition: form-data; name="explain"',
    b'Content-Disposition: form-data; name="a"; filename=""',
    b'Content-Disposition: form-data; name="a b;c"',
    b'Content-Disposition: form-data; name="\xc3\xa4"',
    b'Content-Disposition: form-data; filename="x"; name="a\\"b"',
    b"Content-Type: image/png",
)
CONTENTS = (b"", b"\r\n", b"abc\r\n\r\nxx", b"--B", b"\r\n--", b"\r\n-", b"\n--B\n", bytes(range(256)))
ENDS = (b"--B--\r\n", b"--B--", b"--B--\r\nmore", b"--B", b"")


def outcome(body: bytes, content_type: str) -> list[Part] | tuple[int, str]:
    """The parts, or the error's status and code."""
    try:
        return read_parts(body, content_type, limit=3)
    except ApiError as error:
        return error.status, error.code


def forms(count: int) -> list[bytes]:
    """Forms of up to five parts, a third of them with a byte changed or left out."""
    chance, found = random.Random(0), []
    for _ in range(count):
        parts = [
            b"--B\r\n" + chance.choice(HEADS) + b"\r\n\r\n" + chance.choice(CONTENTS) + b"\r\n"
            for _ in range(chance.randint(0, 5))
        ]
        body = b"".join(parts) + chance.choice(ENDS)
        if body and chance.random() < 1 / 3:
            at = chance.randrange(len(body))
            body = body[:at] + bytes([chance.choice(b'\r\n-B:;"= \x00a')]) + body[at + chance.randint(0, 1) :]
        found.append(body)
    return found


def test_both_ways_read_the_same() -> None:
    for body in forms(4000):
        assert outcome(body, PLAIN) == outcome(body, QUOTED), body


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MultipartParser", None)
    body = b"--B\r\n" + HEADS[0] + b"\r\n\r\nabc\r\n--B--\r\n"
    assert read_parts(body, PLAIN, limit=1) == [Part("image", "a.png", b"abc")]
    with pytest.raises(TypeError):  # a long one is not held several times over
        read_parts(body.replace(b"abc", bytes(PLAIN_BYTES)), PLAIN, limit=1)
