"""From a classification bundle and an encoder to labelled embeddings of its training, validation and test cases."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from monai_ssl_transfer import __version__
from monai_ssl_transfer.engines.embedding.cache import EmbeddingCache
from monai_ssl_transfer.engines.embedding.features import cached_features
from monai_ssl_transfer.errors import DataError, UserError, user_error_of
from monai_ssl_transfer.evaluation.probes.task import EncoderSource, TaskSource, task_parser, whole_number
from monai_ssl_transfer.evaluation.probes.task_cases import content_names, task_cases
from monai_ssl_transfer.evaluation.probes.task_encoder import FrozenEncoder, frozen_encoder
from monai_ssl_transfer.evaluation.probes.task_images import TaskImages, preprocessing_for, preprocessing_text
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

if TYPE_CHECKING:
    from monai.bundle import ConfigParser
    from monai.transforms import Compose

FORMAT = 1
AVERAGES = ("none", "volume")


@dataclass(frozen=True)
class EmbeddedTask:
    """Embeddings of a task and where they come from.

    Args:
        vectors: "train", "validation" and "test".
        encoder: facts about it, for people.
        preprocessing: what was done to the images, as plain values.
        files: path or place of every test case.
        volumes: volume of every test case; a case that is of none is its own.
    """

    vectors: dict[str, LabelledVectors]
    encoder: dict[str, Any]
    preprocessing: Any
    files: dict[str, str]
    volumes: dict[str, str]


def task_vectors(
    task: TaskSource,
    encoder: EncoderSource,
    cache: Path | None,
    device: str = "cpu",
    fraction: float = 1.0,
    seed: int = 0,
    average: str = "none",
) -> dict[str, LabelledVectors]:
    """Embed the cases of a task, divided as the bundle's training divides them.

    Args:
        task: a classification bundle.
        encoder: a file or random weights.
        cache: folder of embeddings (see `cache_folder`); None keeps nothing.
        device: where to embed.
        fraction: share of the training patients or scenes that is used.
        seed: of that share.
        average: "volume" gives one row per volume, the mean over its slices (3-D from 2-D).

    Returns:
        "train", "validation" and "test".

    Raises:
        DataError: the bundle does not classify, or something is wrong with the data.
        WeightsError: something is wrong with the encoder.
    """
    with embedder(task, cache, device, fraction, seed, average) as found:
        return found.embed(encoder).vectors


@contextlib.contextmanager
def embedder(
    task: TaskSource,
    cache: Path | None,
    device: str = "cpu",
    fraction: float = 1.0,
    seed: int = 0,
    average: str = "none",
) -> Iterator[TaskEmbedder]:
    """What embeds the cases of a task by one encoder after the other; the cases are listed once. See `task_vectors`."""
    with tempfile.TemporaryDirectory() as folder:  # for the split, which nobody asked to keep
        parser = task_parser(task, Path(folder), fraction, seed)
        yield TaskEmbedder(parser, cache, device, average, channels_stated(task))


def channels_stated(task: TaskSource) -> bool:
    """Whether the user, and not the bundle's default, says what channels CT slices become."""
    from monai.bundle import ConfigParser

    overlays = [ConfigParser.load_config_file(str(file)) for file in task.files()[1:]]
    return "channels" in task.settings or any("channels" in one for one in overlays)


class TaskEmbedder:
    """The cases of a configuration that is there already, and their embeddings by any encoder.

    Args:
        parser: of the bundle; its training must not have run.
        cache: folder of embeddings, see `cache_folder`; None keeps nothing.
        device: where to embed.
        average: "volume" gives one row per volume.
        stated: whether the channels of the configuration must be kept; the encoder's card chooses otherwise.

    Raises:
        DataError: the bundle does not classify, or something is wrong with the data.
    """

    def __init__(
        self,
        parser: ConfigParser,
        cache: Path | None,
        device: str = "cpu",
        average: str = "none",
        stated: bool = True,
    ) -> None:
        if average not in AVERAGES:
            raise DataError(f"average '{average}' is unknown: choose one of {', '.join(AVERAGES)}.")
        self.parser, self.cache, self.device, self.average, self.stated = parser, cache, device, average, stated
        with explained():
            self.cases = task_cases(parser)
            if average == "volume" and all(
                len(set(one.volumes)) == len(one.cases) for one in self.cases.parts.values()
            ):
                raise DataError("average volume: no two of the cases are slices of one volume: leave the average out.")
            photographs = self.cases.store is None
            self.channels = "rgb" if photographs else str(parser.get_parsed_content("channels"))
            self.grey = photographs and parser.get("in_channels") == 1
            self.image_size, self.workers, self.batch_size = (
                whole_number(parser, name) for name in ("image_size", "num_workers", "batch_size")
            )
            self.preprocessing = preprocessing_text(parser)
        self.names = {name: content_names(self.cases, part) for name, part in self.cases.parts.items()}

    def embed(self, source: EncoderSource) -> EmbeddedTask:
        """Embed all cases by one encoder.

        Raises:
            DataError: an image cannot be read, or an embedding is not finite.
            WeightsError: something is wrong with the encoder.
        """
        encoder = frozen_encoder(source, self.channels, self.stated, self.image_size, self.grey)
        with explained():
            transform = preprocessing_for(self.parser, encoder.to_channels)
        identity = {
            "format": FORMAT,
            "encoder": encoder.identity,
            "preprocessing": self.preprocessing,
            "versions": {"monai_ssl_transfer": __version__, "monai": _monai_version()},
        }
        store = EmbeddingCache(self.cache, identity)
        with explained():
            vectors = {name: self._labelled(name, encoder, transform, store) for name in self.cases.parts}
        return EmbeddedTask(vectors, encoder.facts, self.preprocessing, *self._places())

    def _labelled(
        self, name: str, encoder: FrozenEncoder, transform: Compose, store: EmbeddingCache
    ) -> LabelledVectors:
        part = self.cases.parts[name]
        images = TaskImages(self.cases, part, transform, encoder.channels)
        device = torch.device(self.device)
        found = cached_features(encoder.network, images, self.names[name], store, device, self.batch_size, self.workers)
        rows = LabelledVectors(
            found.vectors, part.targets, part.cases, part.groups, self.cases.class_names, found.blocks
        )
        return rows.volumes(part.volumes) if self.average == "volume" else rows

    def _places(self) -> tuple[dict[str, str], dict[str, str]]:
        """File and volume of every test case; a case that is an average of slices is both."""
        test = self.cases.parts["test"]
        if self.average == "volume":
            return ({volume: volume for volume in test.volumes},) * 2
        files, volumes = (dict(zip(test.cases, found, strict=True)) for found in (test.files, test.volumes))
        return files, volumes


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Let the sentence for the user out of MONAI's errors about configurations and transforms."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = user_error_of(error)
        if cause is None:
            raise
        raise type(cause)(str(cause)) from error


def _monai_version() -> str:
    import monai

    return str(monai.__version__)
