"""Commands on scans and photographs: ingest, audit, verify, phantom."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands
from monai_ssl_transfer.cli.execution import add_executor_arguments


def _ingest_ct(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.ct.ingest import ingest_ct

    report = ingest_ct(
        arguments.source,
        arguments.out,
        workers=arguments.workers,
        labels_csv=arguments.labels,
        executor=arguments.executor,
        address=arguments.address,
    )
    print(report.summary())
    return 0


def _ingest_frames(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames

    report = ingest_frames(
        arguments.source,
        arguments.out,
        workers=arguments.workers,
        longest_side=arguments.longest_side,
        every=arguments.every,
        group_pattern=arguments.group_pattern,
        crop=arguments.crop,
        duplicate_threshold=arguments.near_duplicates,
        labels_csv=arguments.labels,
        leave_out=arguments.leave_out,
        executor=arguments.executor,
        address=arguments.address,
    )
    print(report.summary())
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.audit.audit import audit_data

    embed = None
    if arguments.encoder_weights is not None:
        from monai_ssl_transfer.engines.embedding.audit_embeddings import record_embedder

        embed = record_embedder(arguments.encoder_weights)
    report = audit_data(
        arguments.data,
        split=arguments.split,
        against=arguments.against,
        group_pattern=arguments.group_pattern,
        workers=arguments.workers,
        exclude=[arguments.out.absolute()],
        embed=embed,
    )
    print(report.summary())
    print(f"see {report.write(arguments.out)}")
    return report.exit_code(arguments.fail_on)


def _verify(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.store import SliceStore

    store = SliceStore(arguments.store)
    damaged = store.verify()
    print("\n".join(damaged) if damaged else f"{arguments.store}: all {len(store)} slices are whole")
    return 1 if damaged else 0


def _phantom_ct(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.phantoms.ct_dataset import write_phantom_dataset

    print(write_phantom_dataset(arguments.out, cases=arguments.cases, size=arguments.size, seed=arguments.seed))
    return 0


def _phantom_endoscopy(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.phantoms.endoscopy_dataset import write_endoscopy_phantoms

    out = write_endoscopy_phantoms(
        arguments.out, arguments.videos, arguments.frames, size=arguments.size, seed=arguments.seed
    )
    print(f"{out}: {(out / 'README.txt').read_text(encoding='utf-8')}", end="")
    return 0


def add_ingest(commands: Commands) -> None:
    ingest = commands.add_parser("ingest", help="turn scans on disk into a slice store")
    kinds = ingest.add_subparsers(dest="kind", required=True, metavar="KIND")
    ct = kinds.add_parser("ct", help="DICOM and NIfTI CT of any folder tree")
    ct.add_argument("source", type=Path, metavar="SRC", help="folder that holds the scans, at any depth")
    ct.add_argument("--out", type=Path, required=True, metavar="STORE", help="slice store to create or to append to")
    _add_workers(ct)
    ct.add_argument("--labels", type=Path, default=None, metavar="CSV", help="body region per file or series")
    ct.set_defaults(run=_ingest_ct)
    frames = kinds.add_parser("frames", help="image files and videos of endoscopies, of any folder tree")
    frames.add_argument("source", type=Path, metavar="SRC", help="folder that holds images and videos, at any depth")
    frames.add_argument("--out", type=Path, required=True, metavar="STORE", help="store to create or to append to")
    _add_workers(frames)
    frames.add_argument("--longest-side", type=int, default=512, metavar="PIXELS", help="0 keeps sizes (default: 512)")
    frames.add_argument("--every", type=int, default=25, metavar="N", help="of videos every N-th frame (default: 25)")
    group = "its first (...) in a file's path names the patient (default: the folder; a video is its own group)"
    frames.add_argument("--group-pattern", default=None, metavar="REGEX", help=group)
    frames.add_argument("--crop", action="store_true", help="cut off the black border and the text in it")
    near = "drop a frame that differs in at most so many of 256 bits from the one before; -1 keeps all (default: 16)"
    frames.add_argument("--near-duplicates", type=int, default=16, metavar="BITS", help=near)
    frames.add_argument("--labels", type=Path, default=None, metavar="CSV", help="file and class")
    held = "frames.json of a training run: its test photographs and their scenes are left out; or a text file of names"
    frames.add_argument("--leave-out", type=Path, default=None, metavar="FILE", help=held)
    frames.set_defaults(run=_ingest_frames)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    told = "processes, or files that a cluster reads at once (default: cores of this machine)"
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help=told)
    add_executor_arguments(parser)


def add_audit(commands: Commands) -> None:
    audit = commands.add_parser("audit", help="look for leakage and damage in a data set: HTML, JSON and an exit code")
    audit.add_argument(
        "data", type=Path, metavar="DATA", help="data set in any layout, folder of scans, or slice store"
    )
    named = "split.json, cases.json or frames.json of a run, or names by part (default: folders train, val, test)"
    audit.add_argument("--split", type=Path, default=None, metavar="FILE", help=named)
    shares = "another data set or store that must share nothing with DATA"
    audit.add_argument("--against", type=Path, default=None, metavar="OTHER", help=shares)
    audit.add_argument("--out", type=Path, default=Path("audit"), metavar="DIR", help="default: audit")
    audit.add_argument("--group-pattern", default="", metavar="REGEX", help="its first (...) in a path is the patient")
    audit.add_argument("--encoder_weights", "--encoder-weights", type=Path, default=None, metavar="FILE")
    failing = "exit with 1 from this severity on: error, warning or note (default: error)"
    audit.add_argument("--fail-on", choices=("error", "warning", "note"), default="error", help=failing)
    audit.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    audit.set_defaults(run=_audit)


def add_phantom(commands: Commands) -> None:
    phantom = commands.add_parser("phantom", help="generate data that looks like the real thing")
    kinds = phantom.add_subparsers(dest="kind", required=True, metavar="KIND")
    ct = kinds.add_parser("ct", help="CT-like volumes as NIfTI (LiTS layout) and DICOM series")
    ct.add_argument("--out", type=Path, required=True, metavar="DIR")
    ct.add_argument("--cases", type=int, default=24, help="patients (default: 24)")
    ct.add_argument("--size", type=int, default=128, help="rows and columns of a slice (default: 128)")
    ct.add_argument("--seed", type=int, default=0)
    ct.set_defaults(run=_phantom_ct)

    endoscopy = kinds.add_parser("endoscopy", help="endoscopy-like videos and the layouts of five public data sets")
    endoscopy.add_argument("--out", type=Path, required=True, metavar="DIR")
    endoscopy.add_argument("--videos", type=int, default=16, help="the labelled sets grow with it (default: 16)")
    endoscopy.add_argument("--frames", type=int, default=8, help="frames of a video or sequence (default: 8)")
    endoscopy.add_argument("--size", type=int, default=256, help="rows of a picture (default: 256)")
    endoscopy.add_argument("--seed", type=int, default=0)
    endoscopy.set_defaults(run=_phantom_endoscopy)


def add_verify(commands: Commands) -> None:
    verify = commands.add_parser("verify", help="check every slice of a store against its checksum")
    verify.add_argument("store", type=Path, metavar="STORE")
    verify.set_defaults(run=_verify)
