"""The encoder whose embeddings choose what to label: where it comes from, and one vector per image file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from monai_ssl_transfer.data.ct.nifti import open_nifti
from monai_ssl_transfer.data.ct.volume import to_hu
from monai_ssl_transfer.data.ct.volume_slices import SLICES, even_numbers
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES, read_frame
from monai_ssl_transfer.engines.embedding.encoder_settings import encoder_settings
from monai_ssl_transfer.errors import DataError, WeightsError
from monai_ssl_transfer.views.windows import source_channels
from monai_ssl_transfer.weights.built import load_encoder
from monai_ssl_transfer.weights.save import WEIGHTS_NAME, hash_tensors, save_encoder

logger = logging.getLogger(__name__)

_VOLUMES = (".nii", ".nii.gz")
_SIZE = 224
_NONE = (
    "there is no encoder to compare images by yet: start the server with --encoder and an encoder.safetensors, or "
    "train a bundle first."
)


def is_photograph(file: str | Path) -> bool:
    """Whether a file is a photograph by its name."""
    return str(file).lower().endswith(FRAME_SUFFIXES)


def find_encoder(given: Path | None, bundles: Path, kept: Path, photographs: bool) -> Path:
    """The file of the encoder that embeds a datastore.

    An encoder that has to be cut out of a trained model is kept, so that the embeddings of all images stay comparable
    when that model is trained on.

    Args:
        given: what the user named; None: the ``encoder/`` of a bundle, else the encoder that was kept, else that of a
            bundle's trained model; bundles for the datastore's kind of images come first.
        bundles: folder of bundles.
        kept: folder for an encoder that is cut out of a trained model.
        photographs: whether the datastore holds photographs, not volumes.

    Raises:
        WeightsError: there is none.
    """
    if given is not None:
        return given
    folders = sorted(
        (one for one in bundles.glob("*") if one.is_dir()), key=lambda one: (_of_photographs(one) != photographs, one)
    )
    for folder in folders:
        if (folder / "encoder" / WEIGHTS_NAME).is_file():
            return folder / "encoder" / WEIGHTS_NAME
    if (kept / WEIGHTS_NAME).is_file():
        return kept / WEIGHTS_NAME
    refused = ""
    for folder in folders:
        model = folder / "models" / "model.pt"
        if model.is_file():
            try:
                return _cut_out(model, kept, "rgb" if _of_photographs(folder) else "windows")
            except WeightsError as error:
                refused = f" (the model of {folder.name} does not serve: {error})"
                logger.info("%s gives no encoder: %s", model, error)
    raise WeightsError(_NONE[:-1] + refused + ".")


class ImageEncoder:
    """One vector per image file: of a photograph the whole, of a volume the mean over slices.

    Args:
        file: ``encoder.safetensors``, or any file that `ssl-transfer weights inspect` knows.

    Raises:
        WeightsError: the file holds no encoder.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._encoder: Any = load_encoder(file)
        card: Any = self._encoder.card
        self.hash = str(card.weights_hash) or hash_tensors(self._encoder.state_dict())
        self._encoder.to(self.device)
        self._feeding = lru_cache(maxsize=2)(self._feeding_of)

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on besides the image."""
        return {"made_by": "label", "encoder": self.hash, "size": _SIZE, "slices": SLICES, "device": "any"}

    @torch.no_grad()
    def __call__(self, file: str | Path) -> np.ndarray:
        """Embed one image.

        Args:
            file: a photograph, or a ``.nii`` or ``.nii.gz`` volume in HU.

        Returns:
            (D,) float32.

        Raises:
            DataError: the file cannot be read, is of another kind, or gives values that are not finite.
        """
        photograph = is_photograph(file)
        parts = [_photograph(file)] if photograph else _slices(file)
        vectors = [self._encoder(self._prepared(part, photograph)).float().cpu() for part in parts]
        mean: np.ndarray = torch.cat(vectors).mean(dim=0).numpy()
        if not np.isfinite(mean).all():
            raise DataError(f"{file} gives an embedding that is not finite: the image or {self.file} is damaged.")
        return mean

    def _feeding_of(self, photograph: bool) -> tuple[torch.nn.Module, int, int]:
        settings = encoder_settings(self.file, "", "rgb" if photograph else "windows", _SIZE, "token")
        return (
            settings.to_channels(settings.channels).to(self.device),
            settings.image_size,
            source_channels(settings.channels),
        )

    def _prepared(self, pixels: torch.Tensor, photograph: bool) -> torch.Tensor:
        """(1, 3 or 1, H, W) RGB or HU to what the encoder takes."""
        to_channels, size, sources = self._feeding(photograph)
        image = pixels.to(self.device).float()
        image = image if photograph else image.repeat(1, sources, 1, 1)
        seen: torch.Tensor = to_channels(
            functional.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
        )
        wanted = int(self._encoder.card.in_channels)
        return seen.mean(1, keepdim=True) if wanted == 1 and seen.shape[1] != 1 else seen


def _photograph(file: str | Path) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_frame(file))).permute(2, 0, 1)[None]


def _slices(file: str | Path) -> Iterator[torch.Tensor]:
    if not str(file).lower().endswith(_VOLUMES):
        raise DataError(
            f"{file} cannot be embedded: photographs ({', '.join(FRAME_SUFFIXES)}) and volumes "
            f"({', '.join(_VOLUMES)}) can."
        )
    stack = open_nifti(file)
    for place in even_numbers(len(stack.stored)):
        plane = to_hu(stack.stored[place], stack.slope, stack.intercept)
        yield torch.from_numpy(np.ascontiguousarray(plane))[None, None]


def _of_photographs(bundle: Path) -> bool:
    """Whether a bundle takes photographs: those of volumes say how HU become channels."""
    file = bundle / "configs" / "inference.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("channels", "rgb") == "rgb"


def _cut_out(model: Path, kept: Path, channels: str) -> Path:
    encoder: Any = load_encoder(model)
    encoder.card = replace(encoder.card, method={"name": "cut out of a trained model"})
    logger.info("the encoder in %s (%s) is kept in %s", model, channels, kept)
    return save_encoder(encoder, kept, encoder.card)
