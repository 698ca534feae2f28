"""The layout of a folder of pictures is found out, whatever lies beside them."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashion.data.junk import is_junk
from fashion.data.layout import Layout, find_layout, natural_key
from fashion.data.manifest import DataError


def make(root: Path, *names: str) -> Path:
    """Empty files: a layout is found by names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def counted(layout: Layout) -> Counter[tuple[str | None, str]]:
    return Counter((entry.split, entry.label) for entry in layout.entries)


def test_class_folders(tmp_path: Path) -> None:
    layout = find_layout(make(tmp_path, "cat/1.png", "cat/deep/2.jpg", "dog/1.png", "README.md"))
    assert layout.kind == "one folder a class"
    assert counted(layout) == {(None, "cat"): 2, (None, "dog"): 1}
    assert layout.notes == ("1 file beside the classes: passed over",)


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("Training", "valid", "TEST"), ("train", "val")])
def test_folders_of_any_splits(tmp_path: Path, given: tuple[str, ...]) -> None:
    layout = find_layout(make(tmp_path, *(f"{split}/{name}/1.png" for split in given for name in ("cat", "dog"))))
    meant = [
        {"t": "train", "v": "val"}.get(name[0].casefold()) if "est" not in name.casefold() else "test" for name in given
    ]
    assert counted(layout) == {(split, name): 1 for split in meant for name in ("cat", "dog")}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    layout = find_layout(make(tmp_path, "train/1.png", "bus/1.png", "plane/1.png"))
    assert counted(layout) == {(None, "train"): 1, (None, "bus"): 1, (None, "plane"): 1}


def test_other_folders_beside_splits_are_passed_over_and_said(tmp_path: Path) -> None:
    layout = find_layout(make(tmp_path, "train/cat/1.png", "train/dog/1.png", "unlabelled/3.png"))
    assert counted(layout) == {("train", "cat"): 1, ("train", "dog"): 1}
    assert layout.notes == ("unlabelled/ holds no class folders of a split: passed over",)


def test_a_folder_around_all_is_looked_into(tmp_path: Path) -> None:
    layout = find_layout(make(tmp_path, "archive/pictures/cat/1.png", "archive/pictures/dog/1.png", "docs/cat/x.txt"))
    assert {entry.path for entry in layout.entries} == {"archive/pictures/cat/1.png", "archive/pictures/dog/1.png"}
    assert layout.class_names == ("cat", "dog")


@pytest.mark.parametrize("junk", [".ipynb_checkpoints/a.png", "__MACOSX/cat/._1.png", "cat/Thumbs.db", "@eaDir/x.png"])
def test_junk_is_passed_over_and_said(tmp_path: Path, junk: str) -> None:
    layout = find_layout(make(tmp_path, "cat/1.png", "dog/1.png", junk))
    assert layout.junk == (junk,)
    assert layout.class_names == ("cat", "dog")


@given(
    st.sampled_from(["cat", "Ärmel", "a.b", "train", "thumbs", "desktop"]), st.sampled_from(["1.png", "x y.jpg", "no"])
)
def test_ordinary_names_are_no_junk(folder: str, name: str) -> None:
    assert not is_junk(f"{folder}/{name}")


def test_classes_are_in_natural_order() -> None:
    assert sorted(["10", "2", "b", "A", "1", "a10", "a9"], key=natural_key) == ["1", "2", "10", "A", "a9", "a10", "b"]


@pytest.mark.parametrize("kind", ["csv", "excel", "tsv", "jsonl", "parquet"])
def test_a_table_gives_labels_splits_and_groups(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/unnamed.png")
    rows = [
        {"Filename": "images/a.png", "label": "cat", "split": "train", "group": "p1"},
        {"Filename": "b.png", "label": "dog", "split": "valid", "group": ""},
        {"Filename": "c", "label": "dog", "split": "", "group": "p2"},
        {"Filename": "gone.png", "label": "dog", "split": "test", "group": ""},
    ]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    elif kind == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        separator = {"csv": ",", "excel": ";", "tsv": "\t"}[kind]
        lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
        encoding = "utf-8-sig" if kind == "excel" else "utf-8"
        (tmp_path / f"list.{'tsv' if kind == 'tsv' else 'csv'}").write_text("\n".join(lines), encoding=encoding)
    layout = find_layout(tmp_path)
    found = {entry.path: (entry.label, entry.split, entry.group) for entry in layout.entries}
    assert found == {
        "images/a.png": ("cat", "train", "p1"),
        "images/b.png": ("dog", "val", None),
        "images/c.png": ("dog", None, "p2"),
    }
    assert any("1 of 4 files" in note for note in layout.notes)
    assert any("1 picture in no table" in note for note in layout.notes)


def test_image_folders_with_metadata_of_each_split(tmp_path: Path) -> None:
    make(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    for split in ("train", "test"):
        (tmp_path / split / "metadata.csv").write_text("file_name,label\n1.png,cat\n2.png,dog\n")
    assert counted(find_layout(tmp_path)) == {(s, c): 1 for s in ("train", "test") for c in ("cat", "dog")}


def test_a_table_itself_may_be_the_root(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png")
    (tmp_path / "mine.csv").write_text("path,class\n1.png,cat\n2.png,dog\n")
    assert find_layout(tmp_path / "mine.csv").class_names == ("cat", "dog")


def test_a_table_of_something_else_leaves_the_folders(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "sizes.csv").write_text("name,width\n1,2\n")
    assert find_layout(tmp_path).kind == "one folder a class"


@pytest.mark.parametrize("names", [(), ("1.png", "2.png"), ("cat/1.png",), ("notes/a.txt", "cat/1.png")])
def test_no_layout_is_one_sentence_with_what_is_understood(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least 2 classes are needed; what is understood: class folders"):
        find_layout(make(tmp_path, *names))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog" / "again").symlink_to(tmp_path)
    assert counted(find_layout(tmp_path)) == {(None, "cat"): 1, (None, "dog"): 1}
