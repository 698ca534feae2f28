"""Pictures as somebody has them become a data version with a config to keep."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.shapes import write_shapes
from support.stores import KINDS, Clouds

from fashion.config.compose import load_as
from fashion.config.schema import ConfigError, DataConfig
from fashion.data import adoption, config_file, dataset, manifest, requested, similar, unpacking
from fashion.data.adoption import AdoptedData, Request
from fashion.data.found import screen
from fashion.data.idx import write_idx
from fashion.data.manifest import DataError
from fashion.home import REPOSITORY
from fashion.storage.address import open_store

TAR = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4 unpacks no tar archives")

Adopt = Callable[..., AdoptedData]


@pytest.fixture
def adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adopt:
    monkeypatch.setattr(config_file, "FOLDER", tmp_path / "configs")
    monkeypatch.setenv("FASHION_DATA_BUCKET", "")

    def adopt(root: Path | str, **wanted: object) -> AdoptedData:
        return adoption.adopt(Request(str(root), **wanted), tmp_path / "cache")  # type: ignore[arg-type]

    return adopt


def draw(folder: Path, counts: dict[str, int], *, edges: tuple[int, int] = (20, 60), colour: bool = False) -> Path:
    """Pictures that all differ, in class folders."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            width, height = rng.integers(*edges, 2, endpoint=True)
            shape = (height, width, 3) if colour else (height, width)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def composed(path: Path) -> DataConfig:
    """A written config as Hydra would compose it."""
    from omegaconf import OmegaConf

    return load_as(DataConfig, OmegaConf.to_container(OmegaConf.load(path), resolve=True))  # type: ignore[arg-type]


def test_a_config_and_a_version_are_written_that_can_be_loaded(adopt: Adopt, tmp_path: Path) -> None:
    adopted = adopt(draw(tmp_path / "My Pictures", {"b10": 10, "b9": 10}))
    assert adopted.name == "my_pictures"
    data = composed(config_file.path_of("my_pictures"))
    assert data.class_names == ("b9", "b10")
    assert (data.size, data.channels, data.val_fraction) == (64, 1, None)
    assert data.root == str(tmp_path / "My Pictures")
    assert data.model == "my-pictures-classifier"
    loaded = dataset.load(data, tmp_path / "cache")
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 10, "val": 4, "test": 6}
    assert loaded.digest == adopted.version.digest


def test_fractions_are_kept_in_the_config(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"a": 20, "b": 20})
    first = adopt(folder, val_fraction=0.1, test_fraction=0.4)
    assert first.report.num_rows == {"train": 20, "val": 4, "test": 16}
    data = composed(config_file.path_of("mine"))
    assert (data.fractions.val, data.fractions.test, data.val_fraction) == (0.1, 0.4, None)
    assert adopt(folder).version == first.version
    assert adopt(folder, test_fraction=0.2).report.num_rows == {"train": 28, "val": 4, "test": 8}
    assert adopt(folder).data.fractions.val == 0.1
    _, report, _ = adoption.add(data, str(folder), tmp_path / "cache")
    assert report.num_rows == first.report.num_rows


def test_fractions_of_a_config_are_checked(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"a": 5, "b": 5})
    adopt(folder)
    path = config_file.path_of("mine")
    path.write_text(path.read_text().replace("fractions: {val: null", "fractions: {val: 2"))
    with pytest.raises(ConfigError, match=r"mine.yaml: fractions: fractions.val must be in \(0, 0.9\), got 2"):
        adopt(folder)


def test_the_same_pictures_give_the_same_version_and_keep_the_config(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"a": 10, "b": 10})
    first = adopt(folder)
    path = config_file.path_of("mine")
    path.write_text(path.read_text().replace("What is on this picture?", "Which one?").replace("size: 64", "size: 32"))
    (folder / ".DS_Store").touch()
    again = adopt(folder)
    assert again.data.words.question == "Which one?"
    assert again.data.size == 32
    assert (first.is_new, again.is_new) == (True, True)
    assert adopt(folder).is_new is False
    assert manifest.read(again.data) == again.version


def test_a_config_of_other_pictures_is_not_replaced(adopt: Adopt, tmp_path: Path) -> None:
    adopt(draw(tmp_path / "here" / "mine", {"a": 5, "b": 5}))
    before = config_file.path_of("mine").read_bytes()
    other = draw(tmp_path / "there" / "mine", {"c": 5, "d": 5})
    with pytest.raises(DataError, match=r"mine.yaml describes other pictures .*: name yours with data.name=NAME"):
        adopt(other)
    assert config_file.path_of("mine").read_bytes() == before
    assert adopt(other, name="theirs").name == "theirs"


def test_pictures_that_were_moved_keep_their_config(adopt: Adopt, tmp_path: Path) -> None:
    first = adopt(draw(tmp_path / "here" / "mine", {"a": 5, "b": 5}))
    (tmp_path / "here").rename(tmp_path / "there")
    again = adopt(tmp_path / "there" / "mine")
    assert again.version == first.version
    assert composed(config_file.path_of("mine")).root == str(tmp_path / "there" / "mine")


def test_other_pictures_do_not_take_over_a_config_whose_folder_is_gone(adopt: Adopt, tmp_path: Path) -> None:
    adopt(draw(tmp_path / "here" / "mine", {"a": 5, "b": 5, "c": 5}))
    before = config_file.path_of("mine").read_bytes()
    shutil.rmtree(tmp_path / "here")
    other = draw(tmp_path / "there" / "mine", {"c": 5, "d": 5})
    with pytest.raises(DataError, match=r"mine.yaml describes other pictures .*: name yours with data.name=NAME"):
        adopt(other)
    assert config_file.path_of("mine").read_bytes() == before
    draw(other, {"a": 5})
    assert adopt(other).data.class_names == ("a", "c", "d")


@pytest.mark.parametrize("kind", ["zip", pytest.param("tar.gz", marks=TAR), pytest.param("tar", marks=TAR)])
def test_archives_give_the_version_of_their_folder(adopt: Adopt, tmp_path: Path, kind: str) -> None:
    folder = draw(tmp_path / "plain", {"a": 6, "b": 6})
    packed = tmp_path / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for path in folder.rglob("*.png"):
                archive.write(path, Path("top") / path.relative_to(folder))
    else:
        with tarfile.open(packed, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(folder, "top")
    adopted = adopt(packed)
    assert adopted.name == "packed"
    assert [entry.sha256 for entry in adopted.version.files] == [entry.sha256 for entry in adopt(folder).version.files]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_gives_the_version_of_its_folder(
    adopt: Adopt, tmp_path: Path, kind: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = draw(tmp_path / "plain", {"a": 6, "b": 6})
    address = f"{clouds.bucket(kind, monkeypatch)}/mine"
    for path in folder.rglob("*.png"):
        open_store(address).put(path.relative_to(folder).as_posix(), path.read_bytes())
    adopted = adopt(address)
    assert adopted.name == "mine"
    assert [entry.sha256 for entry in adopted.version.files] == [entry.sha256 for entry in adopt(folder).version.files]


@pytest.mark.parametrize("damage", [lambda content: content[:50], lambda content: b""])
def test_a_damaged_archive_is_one_sentence(adopt: Adopt, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", draw(tmp_path / "plain", {"a": 6, "b": 6}))
    (tmp_path / "packed.zip").write_bytes(damage((tmp_path / "packed.zip").read_bytes()))
    with pytest.raises(DataError, match="packed.zip cannot be unpacked"):
        adopt(tmp_path / "packed.zip")


def test_a_python_that_cannot_keep_a_tar_inside_its_folder_says_so(
    adopt: Adopt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with tarfile.open(tmp_path / "some.tar", "w"):
        pass
    with pytest.raises(DataError, match="some.tar is not unpacked: Python .*, 3.11.4 and newer do; use"):
        adopt(tmp_path / "some.tar")


@TAR
def test_an_archive_writes_nothing_outside(adopt: Adopt, tmp_path: Path) -> None:
    picture = next(draw(tmp_path / "plain", {"a": 6, "b": 6}).rglob("*.png"))
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(picture, "../../outside.png")
    with pytest.raises(DataError, match="evil.tar cannot be unpacked"):
        adopt(tmp_path / "evil.tar")


@pytest.mark.fault("archive that is damaged inside")
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_that_is_damaged_inside_is_one_sentence(adopt: Adopt, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", method) as archive:
        archive.writestr("a/1.png", bytes(range(256)) * 50)
        start = archive.start_dir - archive.infolist()[0].compress_size
    content = bytearray((tmp_path / "packed.zip").read_bytes())
    content[start + 9 : start + 40] = b"\xff" * 31
    (tmp_path / "packed.zip").write_bytes(content)
    with pytest.raises(DataError, match="packed.zip cannot be unpacked"):
        adopt(tmp_path / "packed.zip")


@pytest.mark.fault("archive that unpacks to more than the disk has")
@pytest.mark.parametrize("kind", ["zip", pytest.param("tar", marks=TAR)])
def test_an_archive_that_would_fill_the_disk_is_not_unpacked(adopt: Adopt, tmp_path: Path, kind: str) -> None:
    packed = tmp_path / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a/1.png", b"small")
            archive.infolist()[0].file_size = 2**60
    else:
        info = tarfile.TarInfo("a/1.png")
        info.size = 2**60
        packed.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=rf"packed.{kind} unpacks to 1,152,921,504.6 GB or more, and the disk of"):
        adopt(packed)


def test_a_bucket_of_folder_markers_and_junk_gives_its_pictures() -> None:
    names = [
        "rose",
        "rose/",
        "rose/a.png",
        "rose/.DS_Store",
        ".ipynb_checkpoints/a.png",
        "../b.png",
        "b/../../c.png",
        "",
    ]
    assert unpacking._files(names) == ["rose/a.png"]


def test_a_bucket_as_tools_leave_it_gives_the_version_of_its_folder(
    adopt: Adopt, tmp_path: Path, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = draw(tmp_path / "plain", {"a": 6, "b": 6})
    address = f"{clouds.bucket('gs', monkeypatch)}/mine"
    for path in folder.rglob("*.png"):
        open_store(address).put(path.relative_to(folder).as_posix(), path.read_bytes())
    open_store(address).put("a", b"")  # how some tools store a folder
    adopted = adopt(f"{address}/")
    assert [entry.sha256 for entry in adopted.version.files] == [entry.sha256 for entry in adopt(folder).version.files]
    assert adopted.data.root == adopt(address).data.root == address


@pytest.mark.parametrize("name", ["some.7z", "some.rar", "some.xlsx", "one.jpg", "LICENSE"])
def test_a_file_of_another_kind_is_one_sentence(adopt: Adopt, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(DataError, match=rf"{name} is neither a folder, nor a table \(.csv, .*nor an archive .*\(.zip"):
        adopt(tmp_path / name)


@pytest.mark.parametrize("names", [("1e3", "2E5", "1.5e3", "-1e-3"), ("no", "1_000", "null", "nan")])
def test_class_folders_that_look_like_numbers_are_names(adopt: Adopt, tmp_path: Path, names: tuple[str, ...]) -> None:
    adopt(draw(tmp_path / "1e9", dict.fromkeys(names, 3)))
    data = composed(config_file.path_of("1e9"))
    assert set(data.class_names) == set(names)
    assert data.name == "1e9"


def test_a_thousand_classes_have_labels_of_two_bytes(adopt: Adopt, tmp_path: Path) -> None:
    adopted = adopt(draw(tmp_path / "many", {f"c{number}": 3 for number in range(300)}, edges=(10, 12)))
    loaded = dataset.load(adopted.data, tmp_path / "cache")
    assert loaded.train.labels.max() == 299
    assert adopted.data.class_names[:3] == ("c0", "c1", "c2")


@pytest.mark.parametrize(
    ("edges", "count", "size"), [((8, 8), 6, 28), ((32, 35), 6, 32), ((90, 104), 6, 96), ((200, 300), 6, 128)]
)
def test_the_size_is_fitted(adopt: Adopt, tmp_path: Path, edges: tuple[int, int], count: int, size: int) -> None:
    folder = draw(tmp_path / "mine", {"a": count, "b": count}, edges=edges)
    assert adopt(folder).data.size == size
    assert adopt(folder, size=48).data.size == 48


def test_many_large_pictures_are_made_smaller() -> None:
    from fashion.data.survey import fitting_size

    assert fitting_size([(200, 300)], 1_000) == 128
    assert fitting_size([(200, 300)], 10_000) == 64
    assert fitting_size([(200, 300)], 1_000_000) == 28


@pytest.mark.parametrize(("colour", "channels"), [(True, 3), (False, 1)])
def test_colour_is_found_out(adopt: Adopt, tmp_path: Path, colour: bool, channels: int) -> None:
    assert adopt(draw(tmp_path / "mine", {"a": 5, "b": 5}, colour=colour)).data.channels == channels


def test_grey_pictures_saved_in_colour_are_grey(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"a": 5, "b": 5})
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"), quality=80)
        path.unlink()
    assert adopt(folder).data.channels == 1


@pytest.mark.parametrize(("names", "mirrored"), [(("0", "1", "10"), False), (("a", "ü"), False), (("ant", "0"), True)])
def test_digits_and_letters_are_not_mirrored(
    adopt: Adopt, tmp_path: Path, names: tuple[str, ...], mirrored: bool
) -> None:
    assert adopt(draw(tmp_path / "mine", dict.fromkeys(names, 4))).data.mirrored is mirrored


def test_the_screen_says_what_was_found(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"cat": 30, "dog": 10, "few": 2})
    shutil.copy(folder / "cat" / "0.png", folder / "cat" / "copy.png")
    (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "1.png").read_bytes()[:60])
    (folder / "dog" / "notes\x1b[2J.txt").write_text("a dog")
    (folder / "Thumbs.db").touch()
    said = screen(adopt(folder).found)
    for part in (
        "one folder a class",
        "2: cat, dog",
        "imbalanced: cat has 31 pictures, dog 10",
        "used at 64x64 (data.size= sets another size)",
        "train, val, test divided here, by class",
        "1 picture is exactly like another one, kept in one split",
        "2 files of 43 cannot be read:",
        "cat/broken.png: ",
        "1 file of systems and tools: Thumbs.db",
        "1 class with too few pictures to be in every split: few (2)",
    ):
        assert part in " ".join(said.split()), said
    assert said.isprintable() or all(line.isprintable() for line in said.splitlines())
    assert len(said.splitlines()) <= 25
    assert max(map(len, said.splitlines())) <= 100


def test_nothing_is_written_where_the_pictures_cannot_be_used(adopt: Adopt, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 2 files is a picture that can be read"):
        adopt(folder)
    assert not (tmp_path / "configs").exists()
    assert not (tmp_path / "cache").exists()


def write_idx_files(folder: Path, *, num_classes: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("t10k", 12)):
        labels = np.arange(count, dtype=np.uint8) % num_classes
        (folder / f"{name}-images.idx3-ubyte").write_bytes(write_idx(rng.integers(0, 256, (count, 28, 28), np.uint8)))
        (folder / f"{name}-labels.idx1-ubyte").write_bytes(write_idx(labels))
    return folder


def test_names_that_people_give_to_numbered_classes_stay(adopt: Adopt, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    first = adopt(write_idx_files(tmp_path / "mine"))
    path = config_file.path_of("mine")
    renamed = path.read_text().replace("['0', '1', '2']", "[zebra, ant, mule]")
    path.write_text(renamed)
    again = adopt(tmp_path / "mine")
    assert again.data.class_names == composed(path).class_names == ("zebra", "ant", "mule")
    assert again.version.files == first.version.files
    assert adopt(write_idx_files(tmp_path / "mine", num_classes=4)).data.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("name", ["train", "t10k"])
def test_idx_files_of_unequal_numbers_are_one_sentence(adopt: Adopt, tmp_path: Path, name: str) -> None:
    write_idx_files(tmp_path)
    (tmp_path / f"{name}-labels.idx1-ubyte").write_bytes(write_idx(np.zeros(11, np.uint8)))
    with pytest.raises(DataError, match=r"the IDX files of (train|test) have (60|12) images but 11 labels"):
        adopt(tmp_path, name="numbers")


def test_a_folder_of_idx_files_has_classes_by_number(adopt: Adopt, tmp_path: Path) -> None:
    write_idx_files(tmp_path)
    adopted = adopt(tmp_path, name="numbers")
    assert adopted.data.class_names == ("0", "1", "2")
    assert (adopted.data.size, adopted.data.mirrored) == (28, False)
    assert adopted.report.num_rows == {"train": 48, "val": 12, "test": 12}
    assert "IDX files" in screen(adopted.found)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"preparation": "none"}, "preparation must be 'product_photo', 'whole_picture' or 'handwriting', got 'none'"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"size": 3}, "size must be at least 8 pixels, got 3"),
    ],
)
def test_a_wrong_wish_is_one_sentence(adopt: Adopt, tmp_path: Path, wanted: dict[str, object], sentence: str) -> None:
    folder = draw(tmp_path / "mine", {"a": 5, "b": 5})
    with pytest.raises(ConfigError, match=sentence):
        adopt(folder, **wanted)
    assert not config_file.path_of("mine").exists()


def test_copies_of_the_training_pictures_are_not_in_the_test(adopt: Adopt, tmp_path: Path) -> None:
    folder = draw(tmp_path / "mine", {"a": 20, "b": 20})
    for number in range(10):
        shutil.copy(folder / "a" / f"{number}.png", folder / "a" / f"again{number}.png")
    loaded = dataset.load(adopt(folder).data, tmp_path / "cache")
    keys = [set(similar.content_keys(split.images)) for split in loaded.splits.values()]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 40


class TestRequests:
    def test_overrides_of_the_reading_go_to_the_request(self) -> None:
        overrides = ["data.root=a b/c=d", "data.size=48", "tuning=off", "data.mirrored=false", "data.limit=5"]
        request, others = requested.split_request(overrides)
        assert request == Request("a b/c=d", size=48, mirrored=False)
        assert others == ["tuning=off", "data.limit=5"]

    def test_quotes_around_a_path_are_taken_off(self) -> None:
        request, _ = requested.split_request(["data.root='x y'"])
        assert request == Request("x y")

    @pytest.mark.parametrize(
        ("override", "sentence"),
        [
            ("data.size=big", "data.size must be a number, got 'big'"),
            ("data.mirrored=maybe", "data.mirrored must be true or false, got 'maybe'"),
            ("data.test_fraction=2", r"data.test_fraction must be in \(0, 0.9\), got 2"),
            ("data=digits", "give either data=digits or data.root=x: one names a data set"),
        ],
    )
    def test_a_wrong_value_is_one_sentence(self, override: str, sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            requested.split_request(["data.root=x", override])

    def test_pictures_that_were_read_are_known_by_path_and_by_name(self, adopt: Adopt, tmp_path: Path) -> None:
        folder = draw(tmp_path / "mine", {"a": 5, "b": 5})
        with pytest.raises(ConfigError, match="no model was trained on these pictures; `make train DATA="):
            requested.with_known([f"data.root={folder}"])
        adopt(folder)
        assert requested.with_known([f"data.root={folder}", "x=1"]) == ["data=mine", "x=1"]
        assert requested.with_known(["data.root=mine"]) == ["data=mine"]

    @pytest.mark.parametrize("wish", ["data.size=64", "data.mirrored=false", "data.name=theirs"])
    def test_wishes_for_pictures_that_are_not_read_again_are_refused(
        self, adopt: Adopt, tmp_path: Path, wish: str
    ) -> None:
        folder = adopt(draw(tmp_path / "mine", {"a": 5, "b": 5})).data.root
        sentence = rf"{wish} would change nothing.*mine.yaml are not read again.*`make train DATA={folder}`"
        with pytest.raises(ConfigError, match=sentence):
            requested.with_adopted(["data.root=mine", wish], tmp_path / "cache")
        with pytest.raises(ConfigError, match=sentence):
            requested.with_known([f"data.root={folder}", wish])
        assert requested.with_known([f"data.root={folder}", "data.name=mine"]) == ["data=mine"]

    def test_no_root_is_one_sentence(self) -> None:
        with pytest.raises(ConfigError, match="data.root must name a folder, .* got null"):
            requested.split_request(["data.root=null"])


def test_the_screen_in_the_docs_is_what_is_printed(adopt: Adopt, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "shapes", {"circle": 80, "square": 40, "triangle": 20})
    said = screen(adopt(folder).found)
    assert said in (REPOSITORY / "docs" / "how-to" / "own-pictures.md").read_text(), said
