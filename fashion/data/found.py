"""What was found in somebody's pictures, and one screen that says it. Knows counts and sentences, no pictures."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fashion.data.counting import counted
from fashion.data.layout import Layout

WIDTH = 100
INDENT = 14
NAMED = 3
"""Files or classes that a line names of more."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Which of the readable pictures become rows, and why others do not."""

    num_rows: dict[str, tuple[int, ...]]
    """Split -> rows of each class, in the order of the class names."""
    too_few: dict[str, int]
    """Name and number of pictures of each class that was left out: it has too few to be in every split."""
    unlearnt: int
    """Held-out pictures that were left out, since no training picture has their class."""
    copies: int
    """Pictures whose pixels are those of another one."""
    near_copies: int
    """Pictures that are nearly like another one, without being equal."""
    contradictions: int
    """Pictures whose pixels are those of a picture of another class."""
    groups: int
    """Groups of pictures that were given, by a column or by name."""
    divided: tuple[str, ...]
    """Splits that were made here, not given."""
    paths: dict[str, tuple[str, ...]]
    """Split -> the file of each of its rows."""


@dataclass(frozen=True, eq=False)
class Found:
    """All that was found, for the screen that is shown before training."""

    layout: Layout
    sizes: tuple[tuple[int, int], ...]
    """Widths and heights of a sample of the pictures; empty where a config says how they are used."""
    coloured: float
    """Share of the sample that has colours."""
    size: int
    """Edge that the pictures were prepared to."""
    channels: int
    mirrored: bool
    unreadable: dict[str, str]
    """Path -> reason, of each file that was left out."""
    class_names: tuple[str, ...]
    selection: Selection


def screen(found: Found) -> str:
    """What was found, in about twenty lines."""
    lines = []
    for head, texts in _sections(found):
        for index, text in enumerate(texts):
            wrapped = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False) or [""]
            lines += [f"{head if index + row == 0 else '':{INDENT}}{line}" for row, line in enumerate(wrapped)]
    return "\n".join(_printable(line.rstrip()) for line in lines)


def _sections(found: Found) -> Iterator[tuple[str, list[str]]]:
    selection = found.selection
    totals = {name: sum(counts) for name, counts in selection.num_rows.items()}
    pictures = sum(totals.values())
    yield "layout", [found.layout.kind, *found.layout.notes]
    yield "classes", list(_classes(found))
    yield "pictures", list(_pictures(found))
    shares = ", ".join(f"{name} {count:,}" for name, count in totals.items())
    made = f"{', '.join(selection.divided)} divided here, by class" if selection.divided else "as they were given"
    yield "splits", [f"{shares}; {made}"]
    if alike := list(_alike(selection)):
        yield "alike", alike
    if left_out := list(_left_out(found, pictures)):
        yield "left out", left_out


def _classes(found: Found) -> Iterator[str]:
    counts = np.sum(list(found.selection.num_rows.values()), axis=0)
    names = found.class_names
    shown = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:5])}, ..., {', '.join(names[-2:])}"
    yield f"{len(names):,}: {shown}"
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[high] > 1.5 * counts[low]:
        yield f"imbalanced: {names[high]} has {counts[high]:,} pictures, {names[low]} {counts[low]:,}"
    else:
        yield f"{counts[low]:,} to {counts[high]:,} pictures each"


def _pictures(found: Found) -> Iterator[str]:
    kind = "colour" if found.channels == 3 else "grey"
    sizes = Counter(found.sizes)
    if not sizes:
        yield f"used at {found.size}x{found.size} in {kind}, as the data config says"
        return
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        seen = f"all {width}x{height}"
    else:
        edges = [max(size) for size in found.sizes]
        seen = f"{min(edges)} to {max(edges)} pixels at the longer edge, {np.median(edges):.0f} at the median"
    yield f"{seen}; used at {found.size}x{found.size} (data.size= sets another size)"
    yield f"used in {kind}: {found.coloured:.0%} of {len(found.sizes):,} that were looked at have colours"
    if not found.mirrored:
        yield "not mirrored in training, as the classes look like digits or letters (data.mirrored=true to mirror them)"


def _alike(selection: Selection) -> Iterator[str]:
    kept = ", kept in one split" if selection.divided else ""
    if selection.copies:
        yield f"{_are(selection.copies)} exactly like another one{kept}"
    if selection.near_copies:
        yield f"{_are(selection.near_copies)} nearly like another one{kept}"
    if selection.contradictions:
        yield f"{_are(selection.contradictions)} equal to a picture of another class: one of the two is wrong"
    if selection.groups:
        yield f"{counted(selection.groups, 'group')}{kept}"


def _left_out(found: Found, pictures: int) -> Iterator[str]:
    if found.unreadable:
        yield f"{counted(len(found.unreadable), 'file')} of {pictures + len(found.unreadable):,} cannot be read:"
        yield from (f"  {path}: {reason}" for path, reason in list(found.unreadable.items())[:NAMED])
        if len(found.unreadable) > NAMED:
            yield f"  and {len(found.unreadable) - NAMED:,} more"
    if found.layout.junk:
        names = [path.rpartition("/")[2] for path in found.layout.junk]
        yield f"{counted(len(names), 'file')} of systems and tools: {_some(list(dict.fromkeys(names)))}"
    if few := found.selection.too_few:
        some = _some([f"{name} ({count})" for name, count in few.items()])
        yield f"{counted(len(few), 'class')} with too few pictures to be in every split: {some}"
    if found.selection.unlearnt:
        yield f"{counted(found.selection.unlearnt, 'held-out picture')} of classes that no training picture has"


def _are(count: int) -> str:
    return f"{counted(count, 'picture')} {'is' if count == 1 else 'are'}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _printable(line: str) -> str:
    """The line without bytes of a file's name that are no UTF-8, and control characters: terminals obey those."""
    text = line.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in text)
