"""Where the images of a product line lie, and what is known of each: one function per dataset layout."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Literal

from novad.errors import ConfigError, RefusedError
from novad.images.folders import relative_files, stem_below
from novad.images.mask_files import MaskFiles

__all__ = [
    "LAYOUTS",
    "Sample",
    "accepted_sample",
    "accepted_stem",
    "discover",
    "is_normal",
    "keep_visa_split",
    "mask_folder",
    "part_shown",
]

GOOD = "good"
_NORMAL = (GOOD, "ok")  # BTAD's name
_TESTS = ("test", "test_public")  # the part of MVTec AD 2 whose labels are published
_VALIDATION = "validation"
_MASKS = "ground_truth"
_PLAIN_NORMAL, _PLAIN_ANOMALOUS, _PLAIN_MASKS = _PLAIN = ("normal", "anomalous", "masks")
_UNNAMED_DEFECT = "unspecified"
_NAMES_TOLD = 5
# MVTec AD 2 takes each test part under up to six lamps: 007_regular.png, 007_shift_2.png.
_UNDER_LAMPS = re.compile(rf"({_TESTS[1]}/.+)_(?:regular|overexposed|underexposed|shift_\d+)\.\w+")
_VISA_SPLITS = ("split_csv/1cls.csv", "1cls.csv")
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")

Source = Literal["train", "test", "undivided"]


@dataclass(frozen=True)
class Sample:
    """One image as its layout describes it."""

    path: str  # posix, relative to the line's data folder
    source: Source  # 'undivided' where the layout does not say train or test; splits decide by content
    label: int  # 0 normal, 1 anomalous
    defect_type: str  # 'good' for normal images
    mask_path: str | None = None
    remark: str | None = None  # what the layout found beside the image and passed over; the gate tells it


def discover(root: Path, layout: str) -> list[Sample]:
    """Samples of the data folder ``root``, sorted by path.

    Raises:
        ConfigError: unknown layout, missing folder, or a folder that does not follow the layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout {layout!r} is unknown; choose one of {', '.join(sorted(LAYOUTS))}")
    if not root.is_dir():
        raise ConfigError(f"{root}: no such data folder")
    return sorted(LAYOUTS[layout](root), key=lambda sample: sample.path)


def is_normal(folder: str) -> bool:
    """Whether images in a folder of this name are normal ones, as layouts see it."""
    return folder.casefold() in _NORMAL


def part_shown(path: str) -> str | None:
    """What pictures of one part have in common, where a data set holds several of it; else None.

    Args:
        path: as :class:`Sample` has it.
    """
    shown = _UNDER_LAMPS.fullmatch(path)
    return None if shown is None else shown[1]


def mask_folder(root: Path, layout: str) -> str | None:
    """Folder below ``root`` whose files are masks; None where a table names these."""
    if layout == "mvtec":
        return _mvtec_masks(root)
    return _PLAIN_MASKS if layout == "folder" else None


def accepted_stem(sha256: str) -> str:
    """File name, without its ending, of an image that joins a line: no two images share one."""
    return f"accepted-{sha256[:16]}"


def accepted_sample(layout: str, file_name: str, defect_type: str | None, *, good: bool) -> Sample:
    """Where an image that joins a line belongs, as :func:`discover` will find it there.

    Args:
        layout: of the line.
        file_name: begins with :func:`accepted_stem`.
        defect_type: what people called the defect; None where nobody said.
        good: whether the part was found good.
    Raises:
        RefusedError: a layout whose images are listed in a table.
    """
    if layout == "mvtec":
        kind = GOOD if good else defect_type or _UNNAMED_DEFECT
        folder, source = ("train/good", _source("train")) if good else (f"test/{kind}", _source("test"))
        return Sample(f"{folder}/{file_name}", source, int(not good), kind)
    if layout == "folder":
        if good:
            return Sample(f"normal/{file_name}", "undivided", 0, GOOD)
        folder = f"anomalous/{defect_type}" if defect_type else "anomalous"
        return Sample(f"{folder}/{file_name}", "test", 1, defect_type or "anomalous")
    raise RefusedError(f"layout {layout!r} lists its images in a table; images join mvtec and folder only")


def _mvtec(root: Path) -> list[Sample]:
    """MVTec AD (Bergmann et al. 2019): train/good, test/TYPE, ground_truth/TYPE/NAME_mask.png.

    Also fits VisA after its own preparation for PyTorch, whose masks are ground_truth/TYPE/NAME.png, BTAD
    (Mishra et al. 2021), whose normal images lie in ``ok``, MVTec LOCO (Bergmann et al. 2022), whose masks
    are ground_truth/TYPE/NAME/*.png, and MVTec AD 2 (Heckler-Kram et al. 2025), whose labelled test images
    and masks lie in ``test_public``. validation/good are training images here: splits hold back their own
    share of normals.
    """
    _require(root, "train")
    normal = [f"train/{name}" for name in _normal_folders(root / "train")]
    test = _test_folder(root)
    _require(root, test)
    validating = _folders(root / _VALIDATION)
    normal += [f"{_VALIDATION}/{folder.name}" for folder in validating if is_normal(folder.name)]
    samples = [Sample(path, "train", 0, GOOD) for folder in normal for path in relative_files(root, folder)]
    masks = MaskFiles(root, _mvtec_masks(root))
    for folder in _folders(root / test):
        if folder.name == _MASKS:
            continue
        kind = GOOD if is_normal(folder.name) else folder.name
        for path in relative_files(root, f"{test}/{folder.name}"):
            mask = masks.of(stem_below(path, 1))  # that of a normal image, all black, is not missed either
            samples.append(Sample(path, "test", int(kind != GOOD), kind, mask if kind != GOOD else None))
    beside = [path for folder in ("train", _VALIDATION, test) for path in _directly_in(root, folder)]
    beside += [f"{_VALIDATION}/{folder.name}" for folder in validating if not is_normal(folder.name)]
    beside += [name for name in _TESTS if name != test and (root / name).is_dir()]
    return _with_passed_over(_with_unused_masks(samples, masks), beside, "train/good and test/TYPE")


def _folder(root: Path) -> list[Sample]:
    """Plain folders: normal, anomalous/[TYPE/], masks/[TYPE/]NAME.png or NAME_mask.png.

    The normal images are not divided into train and test here; their content decides later.
    """
    _require(root, _PLAIN_NORMAL)
    samples = [Sample(path, "undivided", 0, GOOD) for path in relative_files(root, _PLAIN_NORMAL)]
    masks = MaskFiles(root, _PLAIN_MASKS)
    for sample in samples:
        masks.of(stem_below(sample.path, 1))
    for path in relative_files(root, _PLAIN_ANOMALOUS):
        parts = Path(path).parts
        defect_type = parts[1] if len(parts) > 2 else _PLAIN_ANOMALOUS
        samples.append(Sample(path, "test", 1, defect_type, masks.of(stem_below(path, 1))))
    beside = [folder.name for folder in _folders(root) if folder.name not in _PLAIN]
    return _with_passed_over(_with_unused_masks(samples, masks), beside, ", ".join(_PLAIN))


def _with_unused_masks(samples: list[Sample], masks: MaskFiles) -> list[Sample]:
    """Remark masks that belong to no image at the defects that may have been meant: those without a mask."""
    unused = masks.unused()
    defects = [sample for sample in samples if sample.label]
    if not unused or not defects:
        return samples
    number = "1 mask file matches" if len(unused) == 1 else f"{len(unused)} mask files match"
    remark = f"{number} no image ({_first_names(unused)}): name each like its image, or remove it"
    meant = [sample for sample in defects if sample.mask_path is None] or defects
    paths = {sample.path for sample in meant}
    return [replace(sample, remark=remark) if sample.path in paths else sample for sample in samples]


def _with_passed_over(samples: list[Sample], beside: list[str], read: str) -> list[Sample]:
    """Remark what lies beside the folders that are read, at the first image: none of these is its own."""
    if not beside or not samples:
        return samples
    told = f"{_first_names(beside)}: passed over, for only {read} are read: move there what the line needs"
    first = min(samples, key=lambda sample: sample.path)
    remark = told if first.remark is None else f"{first.remark}; {told}"
    return [replace(each, remark=remark) if each is first else each for each in samples]


def _directly_in(root: Path, folder: str) -> list[str]:
    """Files in a folder that holds folders of images, among them maybe links to folders."""
    # The walk begins with these, and goes no further: there may be many images below.
    found = takewhile(lambda path: str(PurePosixPath(path).parent) == folder, relative_files(root, folder))
    return [path for path in found if not (root / path).is_dir()]


def _test_folder(root: Path) -> str:
    return next((name for name in _TESTS if (root / name).is_dir()), _TESTS[0])


def _mvtec_masks(root: Path) -> str:
    inside = f"{_test_folder(root)}/{_MASKS}"
    return inside if (root / inside).is_dir() else _MASKS


def _visa(root: Path) -> list[Sample]:
    """VisA (Zou et al. 2022): one object, with its split file or, without one, its image_anno.csv.

    ``split_csv/1cls.csv`` or ``1cls.csv`` (columns object, split, label, image, mask) divides train and test.
    Of a file with several objects, the one named like the folder counts. Without either, the split file
    beside the folder does, as the data set is downloaded; in a workspace that is no part of a line's data.
    Defect types come from ``image_anno.csv`` where present (an image with several has them joined by '+').
    """
    split = _visa_split(root)
    if split is not None:
        return _visa_divided(root, _visa_object(root, split))
    beside = _visa_beside(root)
    if not beside:
        return _visa_annotations(root)
    if not _in_workspace(root):
        return _visa_divided(root, beside)
    remark = (
        f"the {_VISA_SPLITS[0]} beside the folder is no part of the line's data and is not read: copy it "
        "into the folder, or the division into train and test is novad's own"
    )
    samples = _visa_annotations(root)
    return [replace(each, remark=remark) if each.source == "undivided" else each for each in samples]


def keep_visa_split(source: Path, copy: Path) -> None:
    """Give the copy of an object's folder the rows that divide it, if those lie beside ``source``."""
    rows = [] if _visa_split(source) else _visa_beside(source)
    if not rows:
        return
    with (copy / _VISA_SPLITS[-1]).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _VISA_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _visa_split(root: Path) -> Path | None:
    return next((root / name for name in _VISA_SPLITS if (root / name).is_file()), None)


def _visa_object(root: Path, split: Path) -> list[dict[str, str]]:
    """Rows of the one object that is the line."""
    rows = _rows(split, _VISA_COLUMNS)
    objects = sorted({row["object"] for row in rows})
    chosen = objects[0] if len(objects) == 1 else root.name
    if chosen not in objects:
        folders = [root / name for name in objects if (root / name).is_dir()]
        told = f"name its folder, {folders[0]}" if folders else "call the folder like one of them"
        raise ConfigError(f"{split}: holds {', '.join(objects)}; a product line is one object: {told}")
    return _visa_checked(root, split, [row for row in rows if row["object"] == chosen])


def _visa_beside(root: Path) -> list[dict[str, str]]:
    """Rows of the object ``root`` in the split file of the whole data set; none where there is none."""
    split = root.resolve().parent / _VISA_SPLITS[0]
    if not split.is_file():
        return []
    rows = [row for row in _rows(split, _VISA_COLUMNS) if row["object"] == root.resolve().name]
    return _visa_checked(root, split, rows)


def _in_workspace(root: Path) -> bool:
    return any((folder / "dvc.yaml").is_file() for folder in root.resolve().parents)


def _visa_checked(root: Path, split: Path, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of ``split``, with the paths of images and masks as seen from ``root``."""
    for row in rows:
        if row["split"] not in ("train", "test") or (row["split"] == "train" and row["label"] != "normal"):
            raise ConfigError(f"{split}: {row['image']}: split {row['split']!r} with label {row['label']!r}")
    return [row | {name: _without_first(row[name], root) for name in ("image", "mask")} for row in rows]


def _visa_divided(root: Path, rows: list[dict[str, str]]) -> list[Sample]:
    types = _visa_types(root, rows[0]["object"]) if rows else {}
    samples = []
    for row in rows:
        label = int(row["label"] != "normal")
        kind = types.get(row["image"], "anomaly") if label else GOOD
        samples.append(Sample(row["image"], _source(row["split"]), label, kind, row["mask"] or None))
    return samples


def _visa_annotations(root: Path) -> list[Sample]:
    table = root / "image_anno.csv"
    if not table.is_file():
        raise ConfigError(
            f"{root}: layout visa needs split_csv/1cls.csv, 1cls.csv or image_anno.csv"
            f"{_told_lines(root, *_VISA_SPLITS, table.name)}"
        )
    samples = []
    for row in _rows(table, ("image", "label", "mask")):
        label = int(row["label"] != "normal")
        image, mask = _without_first(row["image"], root), _without_first(row["mask"], root)
        source: Source = "test" if label else "undivided"
        samples.append(Sample(image, source, label, _visa_type(row["label"]), mask or None))
    return samples


def _visa_types(root: Path, name: str) -> dict[str, str]:
    tables = (root / name / "image_anno.csv", root / "image_anno.csv")
    table = next((path for path in tables if path.is_file()), None)
    rows = [] if table is None else _rows(table, ("image", "label"))
    return {_without_first(row["image"], root): _visa_type(row["label"]) for row in rows}


def _visa_type(label: str) -> str:
    return GOOD if label == "normal" else "+".join(part.strip() for part in label.split(","))


def _without_first(path: str, root: Path) -> str:
    """VisA's paths begin with the folder of the object, which may be the data folder itself."""
    first, _, rest = path.partition("/")
    return path if not rest or (root / first).is_dir() else rest


def _source(value: str) -> Source:
    return "train" if value == "train" else "test"


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{table}: lacks the column {', '.join(missing)}")
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table}: cannot be read: {error}") from error


def _require(root: Path, *folders: str) -> None:
    for folder in folders:
        if not (root / folder).is_dir():
            raise ConfigError(
                f"{root / folder}: no such folder; see the layouts in the README{_told_lines(root, folder)}"
            )


def _told_lines(root: Path, *signs: str) -> str:
    """Whoever names the folder of a whole data set is told which of its folders could be the line."""
    lines = [each.name for each in _folders(root) if any((each / sign).exists() for sign in signs)]
    return f"; a product line is one of its folders: {_first_names(lines)}" if lines else ""


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_TOLD]) + (", ..." if len(names) > _NAMES_TOLD else "")


def _normal_folders(train: Path) -> list[str]:
    """Names of the folders of normal images, the only ones that belong here.

    Raises:
        ConfigError: there is none, or another one beside.
    """
    found = [folder.name for folder in _folders(train)]
    normal = [name for name in found if is_normal(name)]
    strangers = ", ".join(name for name in found if not is_normal(name))
    if not found:
        _require(train, GOOD)
    if not normal:
        raise ConfigError(
            f"{train / GOOD}: no such folder, but {strangers}: call the folder of normal images '{GOOD}', "
            "in train and in test"
        )
    if strangers:
        raise ConfigError(
            f"{train}: only '{GOOD}' belongs here, found {strangers}: the memory bank must not see defects; "
            "move them to test"
        )
    return normal


def _folders(parent: Path) -> list[Path]:
    """Folders in a folder that may not exist."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


LAYOUTS: dict[str, Callable[[Path], list[Sample]]] = {"mvtec": _mvtec, "visa": _visa, "folder": _folder}
