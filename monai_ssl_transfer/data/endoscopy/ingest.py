"""``ssl-transfer ingest frames``: image files and videos become a frame store, and every file is accounted for."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.data.endoscopy.ingest_exclusion import refuse_stored, separate
from monai_ssl_transfer.data.endoscopy.ingest_labels import read_frame_labels
from monai_ssl_transfer.data.endoscopy.ingest_plan import FrameJob, FrameOptions, Grouping, plan_jobs, sort_files
from monai_ssl_transfer.data.endoscopy.ingest_report import (
    DUPLICATE,
    FILES_NAME,
    IGNORED,
    KEPT,
    REFUSED,
    FileJournal,
    FrameIngestReport,
    keep_options,
)
from monai_ssl_transfer.data.endoscopy.ingest_worker import FileResult, JobResult, read_job, take_spooled
from monai_ssl_transfer.data.file_listing import list_files
from monai_ssl_transfer.data.redaction import open_salt, private_folder
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_frames import EncodedSlice
from monai_ssl_transfer.data.store_writer import SliceStoreWriter
from monai_ssl_transfer.data.worker_pool import Pool, distributed_pool, in_order
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)
_DEFAULTS = FrameOptions()


def ingest_frames(
    source: str | Path,
    store: str | Path,
    *,
    workers: int,
    longest_side: int = _DEFAULTS.longest_side,
    every: int = _DEFAULTS.every,
    group_pattern: str | None = None,
    crop: bool = False,
    duplicate_threshold: int | None = _DEFAULTS.duplicate_threshold,
    labels_csv: str | Path | None = None,
    leave_out: str | Path | None = None,
    progress: bool = True,
    executor: str = "local",
    address: str | None = None,
) -> FrameIngestReport:
    """Put every photograph and every n-th frame of every video below a folder into a frame store.

    Chunks that the store holds already are skipped, so a run that was interrupted is finished by running it again, and
    new files are appended. What became of each file stands in ``<store>/ingest_files.jsonl``.

    Args:
        source: folder (or one file) with image files and videos, among other files.
        store: frame store to create or to append to; ``<store>.private`` beside it gets the salt and the clear names.
        workers: processes that read; 1 reads in this process. On a cluster about so many reads go on at once.
        longest_side: larger frames are made smaller to this many pixels, with their aspect ratio; 0 keeps their sizes.
        every: of a video, frames 0, ``every``, 2 ``every`` ... are taken.
        group_pattern: regular expression whose first capture group, in the path below ``source``, names the patient of
            an image file; default: its folder. A video is its own group.
        crop: cut off the black border and the burnt-in text in it.
        duplicate_threshold: bits of the hash's 256 in which a frame may differ from the frame kept before it in its
            group and still be dropped; None or a negative number keeps all.
        labels_csv: classes of the user, see ``read_frame_labels``.
        leave_out: ``frames.json`` of a training run, so that its test photographs and those of their scenes are not
            pretrained on, or a text file of one name per line.
        progress: whether to show a progress bar.
        executor: ``"local"`` or ``"ray"``, for a Ray cluster whose machines see source and store at the same paths.
        address: of the cluster; None starts one on this machine.

    Returns:
        The report, of this run and those before it.

    Raises:
        DataError: the source does not exist, nothing in it could be kept, the store cannot be appended to or holds
            what shall be left out, or its frames were taken with other options.
        ExecutionError: the cluster cannot be used.
    """
    options = FrameOptions(longest_side, every, crop, duplicate_threshold)
    source, store = Path(source).absolute(), Path(store).absolute()
    if not source.exists():
        raise DataError(f"{source} does not exist, give the folder that holds the frames")
    grouping = Grouping(source, group_pattern)
    paths, problems = list_files(source, exclude=(store, private_folder(store)))
    if not paths:
        raise DataError(f"{source} holds no files, give the folder that holds the frames")
    with SliceStoreWriter(store, pixels="rgb") as writer:
        keep_options(store, options, len(SliceStore(store)))
        labels = read_frame_labels(labels_csv, paths, source, store) if labels_csv is not None else {}
        wanted, others = separate(paths, leave_out)
        frames, videos, unwanted = sort_files(wanted)
        pseudonyms = open_salt(store, SliceStore(store).series_count > 0)
        refuse_stored([refusal.path for refusal, _ in others], SliceStore(store), pseudonyms)
        others += unwanted
        others += [(problem, False) for problem in problems]
        seen = (source, private_folder(store))  # where videos wait for their turn
        distributed = distributed_pool(workers, executor, address, seen)
        with FileJournal(source, store, pseudonyms) as journal, distributed as pool:
            run = _Run(writer, journal, options, len(frames) + len(videos), progress)
            refusals: list[RefusedFile] = []
            jobs = plan_jobs(frames, videos, grouping, labels, refusals)
            for refusal, ignored in others + [(refusal, False) for refusal in refusals]:
                journal.note(refusal.path, IGNORED if ignored else REFUSED, refusal.code, refusal.sentence)
            run.carry_out(pool, jobs, workers)
            report = _report(store, options, journal, run.added)
    if not run.kept_any:
        raise DataError(f"nothing in {source} could be kept, see {store / FILES_NAME} for the reason of each file")
    return report


class _Run:
    """One ingest while it runs: jobs go to the processes, chunks to the store, outcomes to the journal."""

    def __init__(
        self, writer: SliceStoreWriter, journal: FileJournal, options: FrameOptions, files: int, progress: bool
    ) -> None:
        self._writer, self._journal, self._options = writer, journal, options
        self._stored = SliceStore(writer.path)
        self._numbers = {self._stored.series(i).series_key: i for i in range(self._stored.series_count)}
        order = np.argsort(self._stored.index["source"])
        self._known, self._known_labels = (self._stored.index[name][order] for name in ("source", "label"))
        self._fresh: dict[int, int] = {}
        self._spool = private_folder(writer.path) / "spool"
        self._bar = tqdm(total=files, desc="reading frames", unit="file", disable=not progress)
        self.added = 0
        self.kept_any = False

    def carry_out(self, pool: Pool | None, jobs: Iterator[FrameJob], workers: int) -> None:
        """Do all jobs, in their order."""
        shutil.rmtree(self._spool, ignore_errors=True)  # what a killed run left
        self._spool.mkdir(parents=True)
        salt, waiting = self._journal.pseudonyms.salt, []

        def inputs() -> Iterator[tuple[FrameJob, FrameOptions, bytes, Path]]:
            for job in jobs:
                needed = self._needed(job)
                if needed is not None:
                    waiting.append(needed)
                    yield needed, self._options, salt, self._spool

        try:
            with self._bar:
                for result in in_order(pool, read_job, inputs(), workers + 1):
                    job = waiting.pop(0)
                    self._take(job, result)
                    self._bar.update(len(job.files))
        finally:
            shutil.rmtree(self._spool, ignore_errors=True)

    def _key(self, job: FrameJob, part: str = "") -> str:
        return self._journal.pseudonyms.hexadecimal("series", job.name + part)

    def _needed(self, job: FrameJob) -> FrameJob | None:
        """What is to be done of a job: nothing, its account only, or all of it."""
        key = self._key(job)
        if key not in self._numbers:
            return job
        self.kept_any = True
        if job.kind == "frames" and not all(path in self._journal for path in job.files):
            return replace(job, encode=False)  # the process was killed between the store and the journal
        if job.kind == "video" and job.files[0] not in self._journal:
            self._journal.note(job.files[0], KEPT, series=key)
        self._bar.update(len(job.files))
        return None

    def _take(self, job: FrameJob, result: JobResult) -> None:
        key, before = self._key(job), self._own_sources(job)
        if job.kind == "video":
            added = self._append_video(job, result)
        else:
            added = self._append(job, key, result.slices, result.files) if job.encode else set()
        for file in result.files:
            self._account(file, key, added | before)
        self._journal.flush()

    def _own_sources(self, job: FrameJob) -> set[int]:
        """Sources of what the store held of this very job when this run began."""
        numbers = [self._numbers[key] for key in self._keys(job) if key in self._numbers]
        ranges = [self._stored.series_range(number) for number in numbers]
        return {int(source) for own in ranges for source in self._stored.index["source"][own.start : own.stop]}

    def _keys(self, job: FrameJob) -> Iterator[str]:
        yield self._key(job)
        part = 0
        while job.kind == "video" and (key := self._key(job, f"\n{part}")) in self._numbers:
            yield key
            part += 1

    def _append_video(self, job: FrameJob, result: JobResult) -> set[int]:
        """Segments in their order; the last one has the key of the video, so that it tells that all are there."""
        added: set[int] = set()
        last = len(result.segments) - 1
        for part, file in enumerate(result.segments):
            key = self._key(job) if part == last else self._key(job, f"\n{part}")
            slices = take_spooled(file)
            if key not in self._writer:
                added |= self._append(job, key, slices, result.files)
        return added

    def _append(self, job: FrameJob, key: str, slices: list[EncodedSlice], files: Sequence[FileResult]) -> set[int]:
        """Add what is new, and say what that was."""
        new: list[EncodedSlice] = []
        for one in slices:
            known = self._label_of(one.source)
            if known is None:
                self._fresh[one.source] = one.label
                new.append(one)
            elif one.label >= 0 and one.label != known:
                raise self._other_label(next(file.path for file in files if one.source in file.sources), one, known)
        if new:
            patient = self._journal.pseudonyms.hexadecimal("patient", job.group)
            self._writer.append(SeriesEntry(key, patient, job.kind, 0.0, False, (0.0,) * 16), new)
            self.added += len(new)
        return {one.source for one in new}

    def _label_of(self, source: int) -> int | None:
        """Class of a frame in the store, -1 if it has none there; None if the frame is not there."""
        if source in self._fresh:
            return self._fresh[source]
        place = int(np.searchsorted(self._known, np.uint64(source)))
        found = place < len(self._known) and int(self._known[place]) == source
        return int(self._known_labels[place]) if found else None

    def _other_label(self, path: str, frame: EncodedSlice, known: int) -> DataError:
        held = "no label" if known < 0 else f"label {known}"
        if frame.source in self._fresh:
            return DataError(
                f"{path} has label {frame.label} but the same content as a file that was taken with {held}: leave one "
                "of them out and ingest into a new store"
            )
        return DataError(
            f"{path} is in {self._stored.path} with {held}, not {frame.label}, which cannot be changed: ingest into a "
            "new store"
        )

    def _account(self, file: FileResult, key: str, own: set[int]) -> None:
        if file.refusal is not None:
            status = DUPLICATE if file.refusal.code == "near duplicate" else REFUSED
            more = {"near_duplicates": file.near_duplicates}
            self._journal.note(file.path, status, file.refusal.code, file.refusal.sentence, **more)
            return
        self.kept_any = True
        kept = [source for source in file.sources if source in own]
        more = {"near_duplicates": file.near_duplicates}
        if kept:
            own.difference_update(kept)  # a second file with the same content is a copy
            code = "damaged" if file.note else ""
            self._journal.note(file.path, KEPT, code, file.note, series=key, frames=len(kept), **more)
        elif file.path not in self._journal:
            sentence = "has the same content as a file that was taken before"
            self._journal.note(file.path, DUPLICATE, "copy", sentence)


def _report(store: Path, options: FrameOptions, journal: FileJournal, added: int) -> FrameIngestReport:
    journal.tidy()
    counts, reasons, near = journal.count()
    held = SliceStore(store)
    size = sum(file.stat().st_size for file in store.glob("*.bin"))
    report = FrameIngestReport(
        store,
        options,
        frames=len(held),
        groups=len(np.unique(held.patient_numbers())),
        added_frames=added,
        near_duplicates=near,
        labelled=int((held.index["label"] >= 0).sum()),
        bytes_per_frame=size // max(len(held), 1),
        counts=counts,
        reasons=reasons,
    )
    report.write()
    return report
