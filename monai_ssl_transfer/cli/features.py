"""The command on features: what encoders see in images, before anything is trained on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands


def _features(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from monai_ssl_transfer.evaluation.features.images import choose_images, open_images
    from monai_ssl_transfer.evaluation.features.measure import MeasureOptions, measure_features
    from monai_ssl_transfer.evaluation.features.plane import plane_name
    from monai_ssl_transfer.evaluation.features.report import write_features
    from monai_ssl_transfer.evaluation.features.sources import read_encoders, refuse_missing
    from monai_ssl_transfer.evaluation.features.summary import sentences

    refuse_missing(arguments.encoders)
    planes = tuple(dict.fromkeys(plane_name(method) for method in arguments.planes))
    stored = open_images(arguments.data, arguments.out, arguments.pixels, arguments.group_pattern, arguments.workers)
    images = choose_images(stored, arguments.images, arguments.labels, arguments.seed)
    encoders = read_encoders(
        arguments.encoders, images.photographs, arguments.names, arguments.image_size, arguments.seed
    )
    options = MeasureOptions(
        planes=planes,
        neighbours=arguments.neighbours,
        views=arguments.views,
        device=arguments.device,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    with tqdm(total=len(images), unit="image", desc=f"through {len(encoders)} encoders") as bar:
        result = measure_features(encoders, images, arguments.data.name, options, lambda done: bar.update(done - bar.n))
    page = write_features(result, images, arguments.out)
    print("\n".join([*sentences(result), *result.notes, f"open {page} in a browser"]))
    return 0


def add_features(commands: Commands) -> None:
    features = commands.add_parser("features", help="what encoders see in images: maps, neighbours, CKA, what is kept")
    given = "encoder.safetensors, models/model.pt of a fine-tuned run, or scratch:NAME; all are compared with the first"
    features.add_argument("--encoders", nargs="+", required=True, metavar="FILE", help=given)
    features.add_argument("--names", nargs="+", default=[], metavar="NAME", help="of the encoders, for the report")
    where = "slice store, or folder of CT or photographs"
    features.add_argument("--data", type=Path, required=True, metavar="DATA", help=where)
    features.add_argument("--out", type=Path, required=True, metavar="DIR", help="page, JSON and tables go there")
    classes = "body_part, class, folder, none, or a CSV of name and class (default: those of the store)"
    features.add_argument("--labels", default="", metavar="WHAT", help=classes)
    drawn = "draw at most so many, evenly from patients; 0 takes all (default: 1000)"
    features.add_argument("--images", type=int, default=1000, metavar="N", help=drawn)
    size = "side for all encoders (default: as each was pretrained)"
    features.add_argument("--image-size", type=int, default=0, metavar="PIXELS", help=size)
    planes = "PCA, t-SNE, UMAP (default: PCA t-SNE)"
    features.add_argument("--planes", nargs="+", default=["PCA", "t-SNE"], metavar="METHOD", help=planes)
    features.add_argument("--neighbours", type=int, default=5, metavar="K", help="of each image (default: 5)")
    views = "method whose views measure alignment (default: simclr)"
    features.add_argument("--views", default="simclr", metavar="METHOD", help=views)
    pixels = "what a folder holds (default: look at its files)"
    features.add_argument("--pixels", choices=("hu", "rgb"), default="", help=pixels)
    group = "of photographs: its first (...) in a file's path names the patient (default: the folder)"
    features.add_argument("--group-pattern", default=None, metavar="REGEX", help=group)
    features.add_argument("--device", default="cpu", help="such as cuda (default: cpu)")
    features.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once (default: 64)")
    features.add_argument("--workers", type=int, default=1, help="processes that read a folder (default: 1)")
    features.add_argument("--seed", type=int, default=0, help="of the draw, the views, the folds and the maps")
    features.set_defaults(run=_features)
