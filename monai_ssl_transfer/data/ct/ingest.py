"""``ssl-transfer ingest ct``: a folder tree of scans becomes a slice store, and every file is accounted for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_ssl_transfer.data.ct.body_part import BodyPart, read_labels_csv
from monai_ssl_transfer.data.ct.dicom import spare_copies
from monai_ssl_transfer.data.ct.dicom_series import group_slices
from monai_ssl_transfer.data.ct.ingest_account import Account
from monai_ssl_transfer.data.ct.ingest_report import REPORT_NAME, IngestReport, read_report
from monai_ssl_transfer.data.ct.ingest_worker import (
    FileScan,
    SeriesJob,
    read_series,
    scan_files,
    series_key,
    source_number,
)
from monai_ssl_transfer.data.file_listing import list_files
from monai_ssl_transfer.data.redaction import open_salt, private_folder
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.store_writer import SliceStoreWriter
from monai_ssl_transfer.data.worker_pool import Pool, distributed_pool, in_order
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)
_FILES_PER_SCAN = 64


def ingest_ct(
    source: str | Path,
    store: str | Path,
    *,
    workers: int,
    labels_csv: str | Path | None = None,
    progress: bool = True,
    executor: str = "local",
    address: str | None = None,
) -> IngestReport:
    """Put every CT slice below a folder into a slice store.

    Series that the store holds already are skipped, so a run that was interrupted is finished by running it again, and
    new scans are appended. What became of each file stands in ``<store>/ingest_report.json``.

    Args:
        source: folder (or one file) with DICOM and NIfTI, in any order and depth, among other files.
        store: slice store to create or to append to; ``<store>.private`` beside it gets the salt and the clear file
            names.
        workers: processes that read; 1 reads in this process. On a cluster about so many reads go on at once.
        labels_csv: body regions of the user, see ``read_labels_csv``; they replace those of the headers.
        progress: whether to show progress bars.
        executor: ``"local"`` or ``"ray"``, for a Ray cluster whose machines see source and store at the same paths.
        address: of the cluster; None starts one on this machine.

    Returns:
        The report, of this run and those before it.

    Raises:
        DataError: the source does not exist, nothing in it could be kept, or the store cannot be appended to.
        ExecutionError: the cluster cannot be used.
    """
    source, store = Path(source).absolute(), Path(store).absolute()
    if not source.exists():
        raise DataError(f"{source} does not exist, give the folder that holds the scans")
    labels = read_labels_csv(labels_csv) if labels_csv is not None else {}
    paths, problems = list_files(source, exclude=(store, private_folder(store)))
    if not paths:
        links = f" but {len(problems)} folder(s) that cannot be searched ({problems[0].sentence})" if problems else ""
        raise DataError(f"{source} holds no files{links}, give the folder that holds the scans")
    with SliceStoreWriter(store) as writer, distributed_pool(workers, executor, address, (source, store)) as pool:
        stored = StoredSeries(store)
        pseudonyms = open_salt(store, bool(stored.numbers))
        account = Account(source, store, pseudonyms, read_report(store))
        chunks = [paths[start : start + _FILES_PER_SCAN] for start in range(0, len(paths), _FILES_PER_SCAN)]
        scans = _scan(pool, chunks, len(paths), workers, progress)
        account.refuse_all(problems)
        jobs = plan_jobs(scans, labels, source, account)
        _run_jobs(pool, jobs, writer, stored, account, workers, progress)
        report = account.finish(StoredSeries(store).note, scans)
    if not account.kept_any:
        raise DataError(f"nothing in {source} could be kept, see {store / REPORT_NAME} for the reason of each file")
    return report


class StoredSeries:
    """What a store holds already, by series key.

    Args:
        store: its folder.
    """

    def __init__(self, store: Path) -> None:
        self.store = SliceStore(store)
        self.numbers = {self.store.series(number).series_key: number for number in range(self.store.series_count)}

    def sources(self, key: str) -> frozenset[int]:
        """Numbers that stand for the origins of the slices of a series."""
        own = self.store.series_range(self.numbers[key])
        return frozenset(int(number) for number in self.store.index["source"][own.start : own.stop])

    def note(self, key: str) -> Any:
        """Entry and slice records of a series."""
        number = self.numbers[key]
        own = self.store.series_range(number)
        return self.store.series(number), self.store.index[own.start : own.stop]


def _scan(pool: Pool | None, chunks: list[list[str]], total: int, workers: int, progress: bool) -> list[FileScan]:
    scans: list[FileScan] = []
    with tqdm(total=total, desc="looking at files", unit="file", disable=not progress) as bar:
        for found in in_order(pool, scan_files, ((chunk,) for chunk in chunks), 4 * workers):
            scans += found
            bar.update(len(found))
    return scans


def plan_jobs(
    scans: Sequence[FileScan], labels: Mapping[str, BodyPart], source: Path, account: Account
) -> list[SeriesJob]:
    """One job per series, in a fixed order; files that need none are accounted for."""
    headers, by_hash = [], {}
    for scan in scans:
        if scan.refusal is not None:
            account.refuse(scan.refusal, ignored=scan.ignored)
        elif scan.nifti_hash in by_hash:
            account.refuse(RefusedFile(scan.path, "copy", "has the same content as another NIfTI file"))
        elif scan.nifti_hash:
            by_hash[scan.nifti_hash] = scan.path
        for header in scan.headers:
            part = find_label(labels, header.path, source, header.series_uid)
            headers.append(header if part is None else replace(header, body_part=int(part)))
    jobs = [SeriesJob(group.name, group=group, patient=group.slices[0][0].patient) for group in group_slices(headers)]
    for content, path in by_hash.items():
        part = find_label(labels, path, source, "")
        part = BodyPart.UNKNOWN if part is None else part
        jobs.append(SeriesJob(f"nifti:{content}", nifti=path, patient=f"nifti:{content}", body_part=int(part)))
    return jobs


def find_label(labels: Mapping[str, BodyPart], path: str, source: Path, series_uid: str) -> BodyPart | None:
    """The user's region of a file.

    Asked for by path (absolute, or below the scanned folder), else series UID, else nearest folder, else file name.
    """
    if not labels:
        return None
    file = Path(path)
    relative = file.relative_to(source) if file.is_relative_to(source) else file
    keys = [path, relative.as_posix(), series_uid]
    keys += [parent.as_posix() for parent in relative.parents if parent.name] + [file.name]
    return next((labels[key] for key in keys if key in labels), None)


def _run_jobs(
    pool: Pool | None,
    jobs: list[SeriesJob],
    writer: SliceStoreWriter,
    stored: StoredSeries,
    account: Account,
    workers: int,
    progress: bool,
) -> None:
    salt = account.pseudonyms.salt
    fresh, probes = [], []
    for job in jobs:
        if series_key(account.pseudonyms, job.name) not in stored.numbers:
            fresh.append(job)
        else:
            probes += account_for_stored(job, stored, account)
    with tqdm(total=sum(map(_files, fresh)), desc="reading scans", unit="file", disable=not progress) as bar:
        results = in_order(pool, read_series, ((job, salt) for job in fresh), workers + 1)
        for job, result in zip(fresh, results, strict=True):
            for entry, slices in result.series:
                if entry.series_key not in writer:
                    writer.append(entry, slices)
                    account.added(len(slices))
            account.take(result)
            bar.update(_files(job))
    for result in in_order(pool, read_series, ((job, salt) for job in probes), workers + 1):
        account.take_late(result)


def _files(job: SeriesJob) -> int:
    return len(job.group.slices) if job.group is not None else 1


def account_for_stored(job: SeriesJob, stored: StoredSeries, account: Account) -> list[SeriesJob]:
    """Account for the files of a series that is in the store.

    Returns:
        A job that checks those files that are not among its slices, if there are any.
    """
    key = series_key(account.pseudonyms, job.name)
    if job.group is None:
        account.take_stored([job.nifti], key)
        return []
    known = stored.sources(key)
    inside = [source_number(account.pseudonyms, files[0].sop_uid) in known for files in job.group.slices]
    kept = [files for files, is_in in zip(job.group.slices, inside, strict=True) if is_in]
    missing = tuple(files for files, is_in in zip(job.group.slices, inside, strict=True) if not is_in)
    account.take_stored([files[0].path for files in kept], key)
    account.refuse_all(copy for files in kept for copy in spare_copies(files, files[0], []))
    return [replace(job, group=replace(job.group, slices=missing), encode=False)] if missing else []
