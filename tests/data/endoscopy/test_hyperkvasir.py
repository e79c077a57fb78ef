from __future__ import annotations

import csv
from pathlib import Path

import pytest

from monai_ssl_transfer.data.endoscopy.hyperkvasir import class_names, finding_cases
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.errors import DataError

# As published: tract, branch, folder; spelling in the official split files. Other branches have no task here.
TREE = {
    "cecum": ("lower", "anatomical-landmarks", "normal-cecum"),
    "ileum": ("lower", "anatomical-landmarks", "ileum"),
    "retroflex-rectum": ("lower", "anatomical-landmarks", "retroflex-rectum"),
    "pylorus": ("upper", "anatomical-landmarks", "normal-pylorus"),
    "retroflex-stomach": ("upper", "anatomical-landmarks", "retroflex-stomach"),
    "z-line": ("upper", "anatomical-landmarks", "normal-z-line"),
    "hemorrhoids": ("lower", "pathological-findings", "hemorroids"),
    "polyps": ("lower", "pathological-findings", "polyp"),
    **{
        f"ulcerative-colitis-grade-{grade}": ("lower", "pathological-findings", f"ulcerative-colitis-grade-{grade}")
        for grade in ("0-1", "1", "1-2", "2", "2-3", "3")
    },
    "barretts": ("upper", "pathological-findings", "barretts"),
    "barretts-short-segment": ("upper", "pathological-findings", "short-segment-barretts"),
    "esophagitis-a": ("upper", "pathological-findings", "oesophagitis-a"),
    "esophagitis-b-d": ("upper", "pathological-findings", "oesophagitis-b-d"),
    "bbps-0-1": ("lower", "quality-of-mucosal-views", "bbps-0-1"),
    "dyed-lifted-polyps": ("lower", "therapeutic-interventions", "dyed-lifted-polyps"),
}


def _folder(root: Path, name: str) -> Path:
    tract, branch, _ = TREE[name]
    return root / "labeled-images" / f"{tract}-gi-tract" / branch / name


def _tree(root: Path, images: int = 3, **sizes: int) -> Path:
    """The labelled tree with image-labels.csv and a split file in the official spelling beside it."""
    rows, folds = [], []
    for name, (tract, branch, split_name) in TREE.items():
        _folder(root, name).mkdir(parents=True)
        for number in range(sizes.get(name, images)):
            stem = f"{name}-{number}"
            (_folder(root, name) / f"{stem}.jpg").write_bytes(b"")
            rows.append((stem, f"{tract.title()} GI", name, branch))
            folds.append((f"{stem}.jpg", split_name, number % 2))
    _table(
        root / "labeled-images" / "image-labels.csv", ",", ("Video file", "Organ", "Finding", "Classification"), rows
    )
    _table(root / "2_fold_split.csv", ";", ("file-name", "class-name", "split-index"), folds)
    return root


def _table(file: Path, delimiter: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("task", "branch"), [("landmarks", "anatomical-landmarks"), ("findings", "pathological-findings")]
)
def test_classes_are_the_folders_of_the_branch(tmp_path: Path, task: str, branch: str) -> None:
    cases = finding_cases(_tree(tmp_path), task, duplicate_threshold=None)
    expected = sorted(name for name, (_, one, _) in TREE.items() if one == branch)
    assert list(class_names(task)) == expected and len(expected) == {"landmarks": 6, "findings": 12}[task]
    assert len(cases) == 3 * len(expected)
    for case in cases:
        assert class_names(task)[case["label"]] == Path(case["image"]).parent.name and case["class"] == case["label"]
    assert finding_cases(tmp_path / "labeled-images", task, duplicate_threshold=None) == cases


@pytest.mark.parametrize("task", ["landmarks", "findings"])
def test_official_split_file_is_understood_in_its_own_spelling(tmp_path: Path, task: str) -> None:
    cases = finding_cases(_tree(tmp_path), task, tmp_path / "2_fold_split.csv", duplicate_threshold=None)
    assert [case["fold"] for case in cases] == [int(case["name"].rsplit("-", 1)[1]) % 2 for case in cases]
    divided = divide_frames(cases, tmp_path / "run", test_fold=1, stratum="class", test_fraction=0)
    assert {case["fold"] for case in divided["test"]} == {1} and {case["label"] for case in divided["test"]} == set(
        range(len(class_names(task)))
    )
    assert {case["fold"] for part in ("train", "validation") for case in divided[part]} == {0}


def test_hemorroids_in_the_split_file_and_as_a_folder(tmp_path: Path) -> None:
    split = _tree(tmp_path) / "2_fold_split.csv"
    assert "hemorroids" in split.read_text() and "hemorrhoids;" not in split.read_text()
    number = class_names("findings").index("hemorrhoids")
    found = finding_cases(tmp_path, "findings", split, duplicate_threshold=None)
    assert [case["name"] for case in found if case["label"] == number] == [f"hemorrhoids-{one}" for one in range(3)]
    folder = _folder(tmp_path, "hemorrhoids")
    folder.rename(folder.with_name("hemorroids"))
    again = finding_cases(tmp_path, "findings", split, duplicate_threshold=None)
    assert [case["label"] for case in again] == [case["label"] for case in found]
    folder.mkdir()
    with pytest.raises(DataError, match="are the same class"):
        finding_cases(tmp_path, "findings", duplicate_threshold=None)


def test_empty_unknown_and_missing_class_folders_are_refused(tmp_path: Path) -> None:
    _tree(tmp_path)
    unknown = _folder(tmp_path, "cecum").with_name("appendix")
    unknown.mkdir()
    with pytest.raises(DataError, match="appendix is no class of the task landmarks"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)
    assert finding_cases(tmp_path, "findings", duplicate_threshold=None)  # another branch: none of its business
    unknown.rmdir()
    for image in _folder(tmp_path, "ileum").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="ileum holds no image"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)
    _folder(tmp_path, "ileum").rmdir()
    with pytest.raises(DataError, match="lacks the class folder ileum"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)
    with pytest.raises(DataError, match="task 'polyps' is unknown"):
        finding_cases(tmp_path, "polyps")


def test_an_image_in_two_classes_is_refused(tmp_path: Path) -> None:
    _tree(tmp_path)
    (_folder(tmp_path, "cecum") / "ileum-0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"ileum-0\.jpg are the same image in two classes"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)


def test_lists_that_contradict_the_tree_are_refused_by_name(tmp_path: Path) -> None:
    labels = _tree(tmp_path) / "labeled-images" / "image-labels.csv"
    original = labels.read_text()
    _replace(labels, "ileum-1,Lower GI,ileum", "ileum-1,Lower GI,cecum")
    with pytest.raises(
        DataError, match=r"ileum-1\.jpg is cecum in .*image-labels\.csv but lies in the folder of ileum"
    ):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)
    labels.write_text(original.replace("ileum-1,", "ileum-9,"))
    with pytest.raises(DataError, match="lists ileum-9, which has no image"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)
    labels.write_text("\n".join(line for line in original.splitlines() if not line.startswith("ileum-1,")))
    with pytest.raises(DataError, match=r"ileum-1\.jpg is not listed"):
        finding_cases(tmp_path, "landmarks", duplicate_threshold=None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (";hemorroids;0", ";hemeroids;0", "unknown class 'hemeroids'"),
        ("polyps-0.jpg;polyp;0", "polyps-0.jpg;polyp;x", "no number of a fold in line"),
        ("polyps-0.jpg;polyp;0", "polyps-1.jpg;polyp;0", "lists polyps-1 twice"),
        ("split-index", "part", "has no column split-index"),
        ("file-name;", "id;", "has no columns file-name"),
    ],
)
def test_a_damaged_split_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    split = _tree(tmp_path) / "2_fold_split.csv"
    _replace(split, old, new)
    with pytest.raises(DataError, match=message):
        finding_cases(tmp_path, "findings", split, duplicate_threshold=None)


def test_the_six_hemorrhoids_are_in_every_part_and_nine_ileum_images_too(tmp_path: Path) -> None:
    _tree(tmp_path, images=40, hemorrhoids=6, ileum=9)
    for task, rare in (("findings", "hemorrhoids"), ("landmarks", "ileum")):
        cases = finding_cases(tmp_path, task, duplicate_threshold=None)
        divided = divide_frames(cases, tmp_path / task, stratum="class")
        number = class_names(task).index(rare)
        assert all(any(case["class"] == number for case in part) for part in divided.values())
