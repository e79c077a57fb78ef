"""``ssl-transfer``: what ``python -m monai.bundle`` lacks. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from monai_ssl_transfer import __version__
from monai_ssl_transfer.errors import UserError


def _ingest_ct(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.ct.ingest import ingest_ct

    report = ingest_ct(
        arguments.source,
        arguments.out,
        workers=arguments.workers,
        labels_csv=arguments.labels,
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
    )
    print(report.summary())
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.audit.audit import audit_data

    embed = None
    if arguments.encoder_weights is not None:
        from monai_ssl_transfer.engines.audit_embeddings import record_embedder

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


def _verify(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.data.store import SliceStore

    store = SliceStore(arguments.store)
    damaged = store.verify()
    print("\n".join(damaged) if damaged else f"{arguments.store}: all {len(store)} slices are whole")
    return 1 if damaged else 0


def _inspect_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.inspection import inspect_file

    inspection = inspect_file(arguments.file)
    print(inspection.to_json() if arguments.json else inspection.table(arguments.names))
    return 0 if inspection.usable else 1


def _count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


def _convert_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.convert import ConvertOptions, convert_file
    from monai_ssl_transfer.weights.files import read_file

    options = ConvertOptions(
        in_channels=arguments.in_channels,
        bgr=arguments.bgr,
        image_size=arguments.image_size,
        patch_size=arguments.patch_size,
        fold_layer_scale=arguments.fold_layer_scale,
        spatial_dims=arguments.spatial_dims,
    )
    written = convert_file(arguments.file, arguments.to, arguments.out, options)
    print(f"{written} is loaded by\n{read_file(written).metadata['load']}")
    return 0


def _known_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.known_table import known_table

    print(known_table())
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.engines.run_tables import listing

    print(listing(arguments.folders or [Path("runs")], as_json=arguments.json))
    return 0


def _export_bundle(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.export.bundle import ExportOptions, archive_of, export_bundle
    from monai_ssl_transfer.export.statements import Statements

    said = ("authors", "data_source", "data_licence", "intended_use")
    options = ExportOptions(
        evaluation=arguments.evaluation,
        version=arguments.version,
        zip=arguments.zip,
        unmeasured=arguments.unmeasured,
        licence_allows_redistribution=arguments.licence_allows_redistribution,
        overwrite=arguments.overwrite,
        stated=Statements(**{name: getattr(arguments, name) for name in said}),
    )
    folder = export_bundle(arguments.name, arguments.weights, arguments.out, options)
    print(folder)
    if options.zip:
        print(archive_of(folder))
    return 0


def _import_study(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.study.importing import ImportOptions, import_study

    options = ImportOptions(
        reference=arguments.reference,
        title=arguments.title,
        smaller_is_better=arguments.smaller_is_better,
        margins=dict(arguments.margin),
        overwrite=arguments.overwrite,
    )
    results, declaration = import_study(arguments.file, arguments.out, options)
    print(f"{arguments.out}: {len(results)} values of {len(results.cells())} cells: {declaration.title}")
    return 0


def _report_study(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.study.report import write_report

    print(f"open {write_report(arguments.study)} in a browser")
    return 0


def _margin(text: str) -> tuple[str, float]:
    metric, found, value = text.rpartition("=")
    if not found or not float(value) > 0:
        raise ValueError(text)
    return metric, float(value)


def _corruptions(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.views.corruptions.severities import markdown_table

    if arguments.out is None:
        print(markdown_table(arguments.domain))
        return 0
    from monai_ssl_transfer.views.corruptions.sheet import write_sheet

    print(write_sheet(arguments.domain, arguments.out, arguments.images, arguments.corruptions))
    return 0


def _robustness(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.evaluation.robustness_grid import GridOptions, parsed_settings, run_grid
    from monai_ssl_transfer.evaluation.robustness_report import markdown, write_report

    options = GridOptions(
        bundle=arguments.bundle,
        weights=arguments.weights,
        data=tuple(arguments.data),
        out=arguments.out,
        corruptions=tuple(arguments.corruptions),
        severities=tuple(arguments.severities),
        overlays=tuple(arguments.config),
        settings=parsed_settings(arguments.set),
        seed=arguments.seed,
    )
    result = run_grid(options)
    page = write_report(result, arguments.out, arguments.bundle)
    print(markdown(result, arguments.bundle) + f"\nopen {page} in a browser")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.demo.run import run_demo

    print(f"open {run_demo(arguments.out, arguments.domain)} in a browser")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-transfer",
        description="Self-supervised pretraining and transfer for medical images. "
        "Training, evaluation and inference are `python -m monai.bundle run` on a bundle.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    ingest = commands.add_parser("ingest", help="turn scans on disk into a slice store")
    kinds = ingest.add_subparsers(dest="kind", required=True, metavar="KIND")
    ct = kinds.add_parser("ct", help="DICOM and NIfTI CT of any folder tree")
    ct.add_argument("source", type=Path, metavar="SRC", help="folder that holds the scans, at any depth")
    ct.add_argument("--out", type=Path, required=True, metavar="STORE", help="slice store to create or to append to")
    ct.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    ct.add_argument("--labels", type=Path, default=None, metavar="CSV", help="body region per file or series")
    ct.set_defaults(run=_ingest_ct)
    frames = kinds.add_parser("frames", help="image files and videos of endoscopies, of any folder tree")
    frames.add_argument("source", type=Path, metavar="SRC", help="folder that holds images and videos, at any depth")
    frames.add_argument("--out", type=Path, required=True, metavar="STORE", help="store to create or to append to")
    frames.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
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

    demo = commands.add_parser("demo", help="the main job on generated data: table and HTML page")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="emptied first (default: demo)")
    demo.add_argument("--domain", choices=("ct", "endoscopy"), default="ct", help="default: ct")
    demo.set_defaults(run=_demo)

    runs = commands.add_parser("runs", help="what was pretrained: a table of runs, or the epochs of one")
    where = "output_dir of a run, for its epochs; or folders above several, for a table (default: runs)"
    runs.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help=where)
    runs.add_argument("--json", action="store_true", help="every figure, as JSON")
    runs.set_defaults(run=_runs)

    bundles = commands.add_parser("bundles", help="hand a finished run out as a MONAI bundle")
    kinds = bundles.add_subparsers(dest="kind", required=True, metavar="KIND")
    export = kinds.add_parser("export", help="a self-contained bundle: inference needs MONAI alone")
    export.add_argument("name", metavar="NAME", help="bundle that was run, such as ct_liver_segmentation")
    export.add_argument("--weights", type=Path, required=True, metavar="RUN", help="output_dir of the training")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder goes into it")
    export.add_argument("--zip", action="store_true", help="also write <name>_v<version>.zip")
    export.add_argument("--evaluation", type=Path, default=None, metavar="DIR", help="default: eval in RUN")
    export.add_argument("--version", default="", metavar="V", help="of the exported bundle (default: the bundle's)")
    export.add_argument("--unmeasured", action="store_true", help="export although nothing is measured")
    stated = "you have the right to hand on weights whose licence reserves it; recorded in the bundle"
    export.add_argument("--licence-allows-redistribution", action="store_true", help=stated)
    export.add_argument("--authors", default="", metavar="NAMES", help="of the model, for metadata and README")
    export.add_argument("--data-source", default="", metavar="TEXT", help="the data that the model was trained on")
    export.add_argument("--data-licence", default="", metavar="TEXT", help="their licence, such as 'CC BY 4.0'")
    export.add_argument("--intended-use", default="", metavar="TEXT", help="default: the bundle's (research)")
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    export.set_defaults(run=_export_bundle)

    _weights_commands(commands)
    _study_commands(commands)
    _robustness_commands(commands)

    verify = commands.add_parser("verify", help="check every slice of a store against its checksum")
    verify.add_argument("store", type=Path, metavar="STORE")
    verify.set_defaults(run=_verify)
    return parser


def _weights_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    weights = commands.add_parser("weights", help="checkpoints of the world: what they are, and other formats of them")
    kinds = weights.add_subparsers(dest="kind", required=True, metavar="KIND")
    inspect = kinds.add_parser("inspect", help="what a file is, what would be used of it and what dropped")
    inspect.add_argument("file", type=Path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="everything, as JSON")
    inspect.add_argument("--names", type=_count, default=2, metavar="N", help="names per group of tensors (default: 2)")
    inspect.set_defaults(run=_inspect_weights)
    convert = kinds.add_parser("convert", help="write the encoder for the network of another library, as safetensors")
    convert.add_argument("file", type=Path, metavar="FILE")
    targets = "timm, torchvision, monai-resnet, monai-vit or monai-flexible-unet"
    convert.add_argument("--to", required=True, metavar="TARGET", help=targets)
    convert.add_argument("--out", type=Path, required=True, metavar="F.safetensors")
    channels = "1 adds the channels' weights up, more repeat and scale them"
    convert.add_argument("--in_channels", "--in-channels", type=int, default=None, metavar="N", help=channels)
    convert.add_argument("--bgr", action="store_true", help="for images with blue first")
    convert.add_argument(
        "--image_size", "--image-size", type=int, default=None, metavar="S", help="of a ViT, in pixels"
    )
    convert.add_argument(
        "--patch_size", "--patch-size", type=int, default=None, metavar="P", help="of a ViT, in pixels"
    )
    fold = "put DINOv2's LayerScale into the layers before it"
    convert.add_argument("--fold_layer_scale", "--fold-layer-scale", action="store_true", help=fold)
    spatial = "3 inflates to volumes (default: 2)"
    convert.add_argument("--spatial_dims", "--spatial-dims", type=int, choices=(2, 3), default=2, help=spatial)
    convert.set_defaults(run=_convert_weights)
    known = kinds.add_parser("known", help="the sources and the published files that are recognised")
    known.set_defaults(run=_known_weights)


def _study_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    study = commands.add_parser("study", help="which initialisation is better: results, statistics, report")
    kinds = study.add_subparsers(dest="kind", required=True, metavar="KIND")
    brought = kinds.add_parser("import", help="make a study of a table of runs, or of the published runs of RadNet")
    brought.add_argument(
        "file", type=Path, metavar="FILE", help="tidy .csv or .parquet (docs/studies.md), or RadNet's .json"
    )
    brought.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    brought.add_argument(
        "--reference", default="", metavar="NAME", help="initialisation that the others are compared with"
    )
    brought.add_argument("--title", default="", help="of the report (default: the file's name)")
    small = "metric of which small values are good; can be repeated"
    brought.add_argument("--smaller-is-better", action="append", default=[], metavar="METRIC", help=small)
    stated = "largest difference that does not matter, stated before the runs; can be repeated"
    brought.add_argument("--margin", action="append", type=_margin, default=[], metavar="METRIC=VALUE", help=stated)
    brought.add_argument("--overwrite", action="store_true", help="replace an earlier import")
    brought.set_defaults(run=_import_study)
    report = kinds.add_parser("report", help="page, Markdown, LaTeX and CSV of a study")
    report.add_argument("study", type=Path, metavar="DIR", help="folder of the study")
    report.set_defaults(run=_report_study)


def _robustness_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    robustness = commands.add_parser("robustness", help="a trained task model under corruptions of five severities")
    robustness.add_argument("--bundle", required=True, metavar="NAME", help="such as endoscopy_polyp_segmentation")
    robustness.add_argument("--weights", type=Path, required=True, metavar="RUN", help="output_dir of the training")
    robustness.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="data set of the test")
    robustness.add_argument("--out", type=Path, required=True, metavar="DIR", help="finished cells in it are kept")
    robustness.add_argument("--corruptions", nargs="+", default=[], metavar="NAME", help="default: all that suit")
    robustness.add_argument("--severities", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N", help="1 to 5")
    overlays = "overlays of the training, for a run without config.json"
    robustness.add_argument("--config", type=Path, nargs="+", default=[], metavar="FILE", help=overlays)
    settings = "further settings of the evaluation, such as evaluate_part=all or image_size=96"
    robustness.add_argument("--set", nargs="+", default=[], metavar="ID=VALUE", help=settings)
    robustness.add_argument("--seed", type=int, default=0, help="of the corruptions")
    robustness.set_defaults(run=_robustness)
    sheet = commands.add_parser("corruptions", help="the table of corruptions, or a contact sheet of them")
    sheet.add_argument("--domain", choices=("photograph", "ct"), required=True)
    sheet.add_argument("--out", type=Path, default=None, metavar="PICTURE", help="write a contact sheet")
    own = "photographs, or NIfTI volumes of CT, for the sheet (default: generated ones)"
    sheet.add_argument("--images", type=Path, nargs="+", default=[], metavar="FILE", help=own)
    sheet.add_argument("--corruptions", nargs="+", default=[], metavar="NAME", help="default: all of the domain")
    sheet.set_defaults(run=_corruptions)


def main(argv: list[str] | None = None) -> int:
    """Run one command; a ``UserError`` ends it with its sentence and exit code 2, any other error with a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        print(f"ssl-transfer: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
