"""Commands on files of weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands


def _inspect_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.inspecting.inspection import inspect_file

    inspection = inspect_file(arguments.file)
    print(inspection.to_json() if arguments.json else inspection.table(arguments.names))
    return 0 if inspection.usable else 1


def _count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


def _convert_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.converting.convert import ConvertOptions, convert_file
    from monai_ssl_transfer.weights.reading.files import read_file

    options = ConvertOptions(
        in_channels=arguments.in_channels,
        bgr=arguments.bgr,
        image_size=arguments.image_size,
        patch_size=arguments.patch_size,
        fold_layer_scale=arguments.fold_layer_scale,
        spatial_dims=arguments.spatial_dims,
    )
    written = convert_file(arguments.file, arguments.to, arguments.out, options)
    code = read_file(written).metadata["load"].replace(f'"{written.name}"', f'"{written.as_posix()}"')
    print(f"{written} is loaded by\n{code}")
    return 0


def _known_weights(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.weights.published.table import known_table

    print(known_table())
    return 0


def add_weights(commands: Commands) -> None:
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
