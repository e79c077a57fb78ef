"""C3VD on disk: colour frames and depth maps, paired by the number of the frame."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, existing_folder, refuse_same_names, subfolders
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

SSL4GIE_TEST_VIDEOS = ("trans_t2_b", "cecum_t4_b")
"""Videos that SSL4GIE tests on (``Depth_estimation/train_depth.py`` of ESandML/SSL4GIE): groups for `divide_frames`."""

SSL4GIE_VALIDATION_VIDEOS = ("trans_t4_a", "cecum_t2_c")
"""Videos that SSL4GIE validates on; it trains on all others."""

_EXPECTED = "the folder of C3VD's registered videos, with N_color.png and NNNN_depth.tiff in a folder per video"
_FRAME = re.compile(r"(?P<number>[0-9]+)_(?P<kind>color|depth)\.(?:png|tiff?)", re.IGNORECASE)
_FIRST_RELEASE = "_under_review"
_DEPTH = 4  # levels of folders that are searched; links to folders are followed


def depth_cases(dataset_dir: str | Path) -> list[Case]:
    """List the frames of C3VD with their depth maps.

    Frames are paired by number, for colour is unpadded (``12_color.png``) where depth is padded (``0012_depth.tiff``).
    Both layouts are read: one folder per video, and the first release's ``<video>_under_review/<name>/``.

    Args:
        dataset_dir: folder of the videos, at most four levels above them, or of one video.

    Returns:
        One dict per frame, by video and number: "name" (``cecum_t1_a-0012``), "image", "depth" (path of the 16-bit map,
        0 to 100 mm over 0 to 65535), "group" (the video, ``cecum_t1_a`` in both layouts).

    Raises:
        DataError: no frames, a frame without depth, a depth map without frame, or two files of one number.
    """
    folder = existing_folder(dataset_dir, _EXPECTED)
    videos = _videos(folder)
    if not videos:
        raise DataError(f"{folder} holds no N_color.png with NNNN_depth.tiff: give {_EXPECTED}.")
    parts: dict[str, list[Path]] = defaultdict(list)
    for place in videos:
        parts[_video_name(place, folder)].append(place)
    cases: list[Case] = []
    for video in sorted(parts, key=natural_key):
        for place in parts[video]:
            # a video of the first release is one folder; where it is several, their frames must not share a name
            prefix = video if len(parts[video]) == 1 else f"{video}-{place.name}"
            cases += _paired(prefix, video, place, videos[place])
    refuse_same_names(cases)
    return cases


def _videos(folder: Path) -> dict[Path, dict[str, dict[int, Path]]]:
    """Colour and depth files by number, for every folder that holds any."""
    found: dict[Path, dict[str, dict[int, Path]]] = {}
    for place in subfolders(folder, _DEPTH):
        for path in sorted(place.iterdir(), key=lambda path: natural_key(path.name)):
            match = _FRAME.fullmatch(path.name)
            if match is None or not path.is_file():
                continue
            files = found.setdefault(place, {"color": {}, "depth": {}})[match["kind"].lower()]
            number = int(match["number"])
            if number in files:
                raise DataError(f"{files[number]} and {path} both claim frame {number}: remove or rename one of them.")
            files[number] = path
    return found


def _video_name(place: Path, folder: Path) -> str:
    """The name of a video, the same in both layouts, so that published splits fit both."""
    inside = [part for part in (folder.name, *place.relative_to(folder).parts) if part.endswith(_FIRST_RELEASE)]
    return inside[-1].removesuffix(_FIRST_RELEASE) if inside else place.absolute().name


def _paired(prefix: str, video: str, place: Path, files: dict[str, dict[int, Path]]) -> list[Case]:
    for kind, other, missing in (("color", "depth", "{0:04d}_depth.tiff"), ("depth", "color", "{0}_color.png")):
        alone = sorted(set(files[kind]) - set(files[other]))
        if alone:
            raise DataError(
                f"{files[kind][alone[0]]} has no {missing.format(alone[0])} in {place} "
                f"({len(alone)} such in this video): restore the missing files or remove the video."
            )
    return [
        {
            "name": f"{prefix}-{number:04d}",
            "image": str(files["color"][number]),
            "depth": str(files["depth"][number]),
            "group": video,
        }
        for number in sorted(files["color"])
    ]
