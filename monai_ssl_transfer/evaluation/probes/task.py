"""Which task is probed and which encoder: a classification bundle with its overlays, and a file or random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_ssl_transfer.engines.bundle_settings import ids_of, unknown_setting
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.installation import find_overlay, project_folder

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

SCRATCH = "scratch"


@dataclass(frozen=True)
class TaskSource:
    """A classification bundle: cases, split, classes and preprocessing follow from its ``train.json``.

    Args:
        bundle: name of the bundle, or its folder.
        data: the data set, as for the bundle's training; none where an overlay or a setting names it.
        overlays: configuration files over ``train.json``, each relative to the working or the project's folder.
        settings: further ids to set, such as {"image_size": 96}; `label_fraction` and `seed` are not among them.
    """

    bundle: str
    data: tuple[Path, ...] = ()
    overlays: tuple[Path, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """The configuration files, the bundle's own first.

        Raises:
            DataError: no such bundle or overlay.
        """
        own = Path(self.bundle) / "configs" / "train.json"
        if not own.is_file():
            own = project_folder() / "bundles" / self.bundle / "configs" / "train.json"
        if not own.is_file():
            fitting = sorted(folder.name for folder in (project_folder() / "bundles").glob("*_classification"))
            raise DataError(f"there is no bundle '{self.bundle}': choose one of {', '.join(fitting)}.")
        return [own, *map(_overlay, self.overlays)]


@dataclass(frozen=True)
class EncoderSource:
    """An encoder in a file, or one with random weights.

    Args:
        name: in tables.
        file: ``encoder.safetensors``, its folder, or any checkpoint that `ssl-transfer weights inspect` knows; None
            for random weights.
        architecture: of random weights, one of ``networks.encoder_names()``.
        seed: of random weights.
    """

    name: str
    file: Path | None = None
    architecture: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.file is None and not self.architecture:
            raise DataError(f"encoder '{self.name}' names no file: give one, or scratch:ARCHITECTURE.")


def encoder_source(text: str) -> EncoderSource:
    """What a command line names: a file, ``NAME=FILE`` to name it, or ``scratch:resnet18`` for random weights.

    Args:
        text: as given.

    Raises:
        DataError: random weights of an unknown architecture.
    """
    from monai_ssl_transfer.networks.encoders import encoder_names

    name, sign, file = text.partition("=")
    if not sign or Path(text).exists():
        name, file = "", text
    kind, colon, architecture = file.partition(":")
    if colon and kind == SCRATCH:
        if architecture not in encoder_names():
            raise DataError(f"'{file}' is no encoder: give scratch: with one of {', '.join(encoder_names())}.")
        return EncoderSource(name or file, None, architecture)
    path = Path(file)
    # encoder.safetensors is what every run calls its encoder: the folder tells them apart
    generic = path.stem in ("encoder", "model") and path.parent.name
    shown = path.parent.name if generic else path.name if path.is_dir() else path.stem
    return EncoderSource(name or shown, path)


def task_parser(task: TaskSource, output_dir: Path, fraction: float = 1.0, seed: int = 0) -> ConfigParser:
    """The merged configuration of a task, as a training with this fraction and seed would have it.

    Args:
        task: the bundle.
        output_dir: where the bundle writes its split.
        fraction: ``label_fraction``.
        seed: of the label fraction and, where the bundle knows no ``split_seed``, of the split.

    Raises:
        DataError: no such bundle or overlay, or a setting that is given elsewhere.
    """
    from monai.bundle import ConfigParser

    taken = {"label_fraction": "--fraction", "seed": "--seed", "output_dir": "--out", "encoder_weights": "the encoder"}
    for name, place in taken.items():
        if name in task.settings:
            raise DataError(f"{name} is no setting of a probe's task: give it by {place}.")
    parser = ConfigParser()
    parser.read_config([str(file) for file in task.files()])
    data = [str(folder) for folder in task.data]
    given: Mapping[str, Any] = {"dataset_dir": data if len(data) > 1 else data[0]} if data else {}
    pairs = {"num_workers": 0, **given, **task.settings}
    parser.update({**pairs, "output_dir": str(output_dir), "label_fraction": fraction, "seed": seed})
    return parser


def whole_number(parser: ConfigParser, name: str) -> int:
    """A setting that counts something.

    Raises:
        DataError: it is no whole number.
    """
    value = parser.get_parsed_content(name)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is {value!r}: give --set {name} a whole number.") from error


def refuse_unknown_settings(task: TaskSource) -> None:
    """MONAI takes any id, so that a misspelt setting would change nothing without a word.

    Args:
        task: with the settings of a command line.

    Raises:
        DataError: neither the bundle nor an overlay has a setting.
    """
    if unknown := unknown_setting(task.settings, ids_of(task.files())):
        name, near = unknown
        hint = f"did you mean {near}?" if near else "its configs/train.json lists them."
        raise DataError(f"{task.bundle} has no setting '{name}': {hint}")


def _overlay(file: Path) -> Path:
    if found := find_overlay(file):
        return found
    raise DataError(f"there is no configuration file {file}: correct --config.")
