"""Labelled volumes as slices: ingested once into a slice store next to the run, then drawn with balanced foreground."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from monai_ssl_transfer.data.ct.volume import CtVolume
from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_writer import EncodedSlice, SliceStoreWriter, StoreBusyError, encode_slice
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

SCALED = ("z_score", "percentile")
CHANNELS = ("windows", "single", "neighbours", *SCALED)
# A slice's record keeps its classes as bits of the 16-bit label; masks with higher classes are looked through instead.
HIGHEST_CLASS_IN_RECORD = 14


@dataclass(frozen=True)
class SliceDrawOptions:
    """How slices are drawn.

    Attributes:
        foreground_fraction: probability that a slice must show a foreground class.
        slices_per_epoch: length of an epoch; None = as many as there are slices.
        channels: ``"neighbours"`` gives the slice between the one below and the one above it, every other layout the
            slice (of each modality).
        seed: of the draws.
        classes: foreground classes to balance; None = every class above 0 that occurs.
        workers: threads that ingest.
        label_values: the task's values in label files, in the order of the classes that they become (0 first); other
            values are refused. None leaves labels as they are.
        volumes: numbers of the modalities within four-dimensional files, for cases that do not name theirs.
    """

    foreground_fraction: float = 0.5
    slices_per_epoch: int | None = None
    channels: str = "windows"
    seed: int = 0
    classes: tuple[int, ...] | None = None
    workers: int = 2
    label_values: tuple[int, ...] | None = None
    volumes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.foreground_fraction <= 1:
            raise DataError(f"foreground_fraction is {self.foreground_fraction}: choose a number from 0 to 1")
        if self.channels not in CHANNELS:
            raise DataError(f"channels is {self.channels!r}: choose one of {', '.join(CHANNELS)}")
        if self.slices_per_epoch is not None and self.slices_per_epoch < 1:
            raise DataError(f"slices_per_epoch is {self.slices_per_epoch}: choose 1 or more, or leave it out")


def case_name(case: Mapping[str, Any]) -> str:
    """Name of a case: its ``"case"``, else its image's file name without the ending."""
    return str(case["case"]) if "case" in case else Path(case["image"]).name.split(".nii")[0]


def case_key(case: Mapping[str, Any], label_map: Mapping[int, int] | None = None) -> str:
    """Series key of a case in the cache: changes with its name, its files' paths, sizes and times, and the label map.

    Raises:
        DataError: If an entry or a file is missing.
    """
    parts: list[Any] = [case_name(case) if "image" in case else "", sorted((label_map or {}).items())]
    for what in ("image", "label"):
        if what not in case:
            raise DataError(f"case {dict(case)} has no {what!r}: give a path for it in the list of cases")
        file = Path(case[what])
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(
                f"{file}, the {what} of case {case_name(case)}, cannot be read ({error.strerror}): "
                "mend the list of cases"
            ) from error
        parts.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    parts += [[name, case[name]] for name in ("volume", "channels") if name in case]  # absent in the key of a plain CT
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def modality_cases(case: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A case once for each of its modalities: with one file of the list ``"image"``, or one number of ``"volumes"``."""
    if "volumes" in case:
        plain = {name: value for name, value in case.items() if name != "volumes"}
        return [{**plain, "volume": number} for number in case["volumes"]]
    if isinstance(case.get("image"), list):
        return [{**case, "image": file} for file in case["image"]]
    return [case]


def read_ct_case(case: Mapping[str, Any]) -> CtVolume:
    """The CT of a case in HU."""
    from monai_ssl_transfer.data.ct.nifti import read_nifti_ct

    return read_nifti_ct(case["image"])


def build_volume_cache(
    cases: Sequence[Mapping[str, Any]],
    cache_dir: str | Path,
    *,
    workers: int = 2,
    label_map: Mapping[int, int] | None = None,
    known_labels_only: bool = False,
    reader: Callable[[Mapping[str, Any]], CtVolume] = read_ct_case,
) -> SliceStore:
    """Bring volumes and their labels into a slice store, each one once.

    A case that is in the cache and whose files have not changed is left alone; a changed one is ingested anew, and its
    old slices stay in the store unused (`case_key` tells which series is a case's). If another process fills the cache,
    as the ranks of one run do, this one waits for it.

    Args:
        cases: ``{"image": path, "label": path, "case": name}`` each, NIfTI.
        cache_dir: folder of the store.
        workers: threads that read and compress; each holds one volume in memory.
        label_map: label in the file -> label in the store; others stay as they are.
        known_labels_only: refuse labels that ``label_map`` does not name.
        reader: gives the volume of a case.

    Returns:
        The store, with a mask for every slice.

    Raises:
        DataError: If a volume or its label cannot be used; names the file. The cases before it are in the cache.
    """
    todo = {case_key(case, label_map): case for case in cases}
    encode = partial(_encode_case, label_map=label_map, known_labels_only=known_labels_only, reader=reader)
    if not todo:
        raise DataError(f"there is no case to put into the cache {cache_dir}: give at least one image with its label")
    waited = False
    while not _all_cached(todo, Path(cache_dir)):
        try:
            with SliceStoreWriter(cache_dir) as writer:
                missing = {key: case for key, case in todo.items() if key not in writer}
                _fill(writer, missing, max(1, workers), encode)
        except StoreBusyError:
            if not waited:
                logger.info("waiting for another process to fill the cache %s", cache_dir)
            waited = True
            time.sleep(0.2)
    return SliceStore(cache_dir)


def _all_cached(cases: Mapping[str, Any], cache_dir: Path) -> bool:
    if not (cache_dir / "store.json").exists():
        return False
    return cases.keys() <= series_numbers(SliceStore(cache_dir)).keys()


def series_numbers(store: SliceStore) -> dict[str, int]:
    """Series number of every series key."""
    return {store.series(number).series_key: number for number in range(store.series_count)}


def _fill(
    writer: SliceStoreWriter,
    cases: Mapping[str, Mapping[str, Any]],
    workers: int,
    encode: Callable[[str, Mapping[str, Any]], tuple[SeriesEntry, list[EncodedSlice]]],
) -> None:
    """Encode in threads, at most ``workers`` volumes ahead, and append in the order of the list."""
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(cases), desc="volumes into the cache", disable=None) as progress,
    ):
        waiting: deque[Future[tuple[SeriesEntry, list[EncodedSlice]]]] = deque()
        left = iter(cases.items())
        try:
            while True:
                for key, case in itertools.islice(left, workers - len(waiting)):
                    waiting.append(pool.submit(encode, key, case))
                if not waiting:
                    return
                writer.append(*waiting.popleft().result())
                progress.update()
        finally:
            for future in waiting:
                future.cancel()


def _encode_case(
    key: str,
    case: Mapping[str, Any],
    label_map: Mapping[int, int] | None,
    known_labels_only: bool,
    reader: Callable[[Mapping[str, Any]], CtVolume],
) -> tuple[SeriesEntry, list[EncodedSlice]]:
    from monai_ssl_transfer.data.ct.layouts import check_label_values
    from monai_ssl_transfer.data.ct.nifti import read_nifti_labels

    volume = reader(case)
    labels = read_nifti_labels(case["label"], volume)
    if known_labels_only:
        check_label_values(labels, case["label"], tuple(label_map or ()))
    if label_map:
        table = np.arange(256, dtype=np.uint8)
        for old, new in label_map.items():
            table[int(old)] = int(new)
        labels = table[labels]
    entry = SeriesEntry(
        series_key=key,
        patient_key=blake2b(case_name(case).encode(), digest_size=16).hexdigest(),
        kind="nifti",
        slice_spacing=float(volume.slice_spacing),
        uneven=bool(volume.uneven),
        affine=tuple(float(x) for x in np.asarray(volume.affine).reshape(-1)),
    )
    slices = [
        encode_slice(
            hu, position=float(position), spacing=volume.spacing, label=_class_bits(mask), source=number, mask=mask
        )
        for number, (hu, mask, position) in enumerate(zip(volume.hu, labels, volume.positions, strict=True))
    ]
    return entry, slices


def _class_bits(mask: np.ndarray) -> int:
    classes = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=1))
    return -1 if classes.max() > HIGHEST_CLASS_IN_RECORD else int((1 << classes).sum())


class ForegroundBalancedSlices(Dataset):
    """Random slices of labelled volumes: a fixed share shows the foreground, rare classes as often as common ones.

    The slice of item k in epoch e is a function of (seed, e, k) alone, whatever the workers and ranks. A foreground
    slice is drawn class first, then case, then slice, each with equal chances, so that a tumour in few slices is seen
    as often as the organ; any other slice is drawn case first. A MONAI random transform is reseeded for each item too.

    Args:
        data: ``{"image": path, "label": path, "case": name}`` each, NIfTI; of several modalities see `modality_cases`.
        cache_dir: folder of the slice store that is built or reused, see `build_volume_cache`.
        transform: takes and gives the item.
        options: how to draw.
        reader: gives the volume of a case.

    Raises:
        DataError: If a volume or a label cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        cache_dir: str | Path,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        options: SliceDrawOptions | None = None,
        reader: Callable[[Mapping[str, Any]], CtVolume] = read_ct_case,
    ) -> None:
        self.transform = transform
        self.options = options or SliceDrawOptions()
        self.data = [self._completed(case) for case in data]
        values = self.options.label_values
        label_map = None if values is None else {value: number for number, value in enumerate(values)}
        modalities = [modality_cases(case) for case in self.data]
        self.store = build_volume_cache(
            [one for case in modalities for one in case],
            cache_dir,
            workers=self.options.workers,
            label_map=label_map,
            known_labels_only=values is not None,
            reader=reader,
        )
        numbers = series_numbers(self.store)
        series = [[numbers[case_key(one, label_map)] for one in case] for case in modalities]
        ranges = [self.store.series_range(first) for first, *_ in series]
        self._slices = [np.arange(r.start, r.stop) for r in ranges]
        self._foreground = self._find_foreground()
        self._names = {first: case_name(case) for (first, *_), case in zip(series, self.data, strict=True)}
        # where the slices of every modality begin, by the series of the first one
        self._starts = {found[0]: [self.store.series_range(one).start for one in found] for found in series}
        # Shared memory, so that workers which live through several epochs see a new one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def _completed(self, case: Mapping[str, Any]) -> Mapping[str, Any]:
        """A case of an annotator, who names no modalities, read as the task's own cases are."""
        more: dict[str, Any] = {"channels": self.options.channels} if self.options.channels in SCALED else {}
        if self.options.volumes is not None:
            more["volumes"] = list(self.options.volumes)
        return case if "case" in case else {**case, **more}

    def _find_foreground(self) -> list[list[np.ndarray]]:
        """For every class that occurs, the slices that show it, one array per case that has any."""
        presence = [np.array([self._classes_of(int(i)) for i in slices]) for slices in self._slices]
        wanted = self.options.classes or range(1, 256)
        found = ([s[p[:, c]] for s, p in zip(self._slices, presence, strict=True) if p[:, c].any()] for c in wanted)
        return [cases for cases in found if cases]

    def _classes_of(self, i: int) -> np.ndarray:
        """(256,) bool: the classes in the mask of slice ``i``."""
        present = np.zeros(256, bool)
        bits = int(self.store.index["label"][i])
        if bits >= 0:
            present[: HIGHEST_CLASS_IN_RECORD + 1] = (bits >> np.arange(HIGHEST_CLASS_IN_RECORD + 1)) & 1
        else:
            present[np.unique(self._mask(i))] = True
        return present

    def _mask(self, i: int) -> np.ndarray:
        mask = self.store.read_mask(i)
        if mask is None:
            raise DataError(f"slice {i} of the cache {self.store.path} has no mask: delete the cache and run again")
        return mask

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; call it before the loader is iterated."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return self.options.slices_per_epoch or sum(len(slices) for slices in self._slices)

    def slice_number(self, k: int, epoch: int) -> int:
        """Number in the store of the slice that is item ``k`` of an epoch."""
        return int(self._slice_of(self._draws(k, epoch)))

    def _draws(self, k: int, epoch: int) -> Iterator[float]:
        """Five uniform numbers of [0, 1): Philox counts, so any item is reached at once (Salmon et al. 2011)."""
        bits = np.random.Philox(key=[self.options.seed, epoch], counter=[0, k, 0, 0])
        return iter(np.random.Generator(bits).random(5).tolist())

    def _slice_of(self, draws: Iterator[float]) -> int:
        cases = self._slices
        if next(draws) < self.options.foreground_fraction and self._foreground:
            cases = _pick(self._foreground, next(draws))
        return _pick(_pick(cases, next(draws)), next(draws))

    def __getitem__(self, k: int) -> Any:
        """Item ``k`` of the epoch.

        Returns:
            What the transform makes of ``"image"`` int16 HU (1, modalities or 3, H, W), ``"label"`` uint8 (1, H, W),
            ``"spacing"`` (row, column) in mm, ``"case"`` and ``"index"``, the slice's number in the store.
        """
        if not 0 <= k < len(self):
            raise IndexError(f"item {k} of {len(self)}")
        epoch = int(self._epoch[0])
        i = self.slice_number(k, epoch)
        record = self.store.index[i]
        starts = self._starts[int(record["series"])]
        shown = [start + i - starts[0] for start in starts]
        if self.options.channels == "neighbours":
            below, above = self.store.neighbours(i)
            shown = [below, i, above]
        image = [self.store.read(j) for j in shown]
        item: dict[str, Any] = {
            "image": torch.from_numpy(np.stack(image)),
            "label": torch.from_numpy(self._mask(i)[None]),
            "spacing": (float(record["row_spacing"]), float(record["column_spacing"])),
            "case": self._names[int(record["series"])],
            "index": i,
        }
        if self.transform is None:
            return item
        if hasattr(self.transform, "set_random_state"):
            *_, last = self._draws(k, epoch)
            self.transform.set_random_state(seed=int(last * 2**32))
        return self.transform(item)


def _pick(choices: Sequence[Any], draw: float) -> Any:
    return choices[int(draw * len(choices))]
