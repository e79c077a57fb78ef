"""Encoders by the words of a command line, with how each is fed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_ssl_transfer.engines.embedding.encoder_settings import EncoderSettings, encoder_settings
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_names, encoder_spec
from monai_ssl_transfer.views.windows import channels_count, normalisation
from monai_ssl_transfer.weights import encoder_facts, load_encoder
from monai_ssl_transfer.weights.read import existing_path

SCRATCH = "scratch:"
IMAGE_SIZE = 224
_POOLINGS = {"token": "class token", "mean": "mean patch token"}


@dataclass(frozen=True)
class FeatureEncoder:
    """An encoder that is looked at.

    Args:
        name: for readers; no two have the same.
        encoder: maps (B, C, H, W) to (B, D).
        settings: how it is fed.
        source: its file, or "random weights".
        sha256: of the file; "" for random weights.
    """

    name: str
    encoder: nn.Module
    settings: EncoderSettings
    source: str
    sha256: str = ""

    @property
    def random(self) -> bool:
        """Whether its weights are random."""
        return not self.sha256

    @property
    def fed(self) -> tuple[str, str, int, str]:
        """What random weights must share with it to be compared: architecture, channels, size, pooling."""
        known = self.settings
        return known.encoder_name, known.channels, known.image_size, known.pooling

    def of_views(self, views: Tensor) -> Tensor:
        """Views of `BatchedViews` as this encoder's input, where it was trained on another scale of colours.

        Args:
            views: (B, C, H, W), normalised as this package does.
        """
        card = self.settings.card
        if card is None or not card.mean or self.settings.channels != "rgb":
            return views
        (mean, std), own = normalisation("rgb"), (card.mean, card.std)
        a, b, c, d = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std, *own))
        return (views * b + a - c) / d


def read_encoders(
    given: Sequence[str], photographs: bool, names: Sequence[str] = (), image_size: int = 0, seed: int = 0
) -> list[FeatureEncoder]:
    """Read the encoders of a command line, and add random weights of every architecture that is among them.

    Channels and size of the input come from an encoder's card, or from the settings of the run that its file lies in;
    where neither tells, from the first encoder that does, else RGB or three HU windows of 224 pixels.

    Args:
        given: files as for `weights.read_encoder`, among them ``models/model.pt`` of a fine-tuned run, or
            "scratch:NAME" for random weights.
        photographs: whether the images are photographs.
        names: one per encoder; none: made of the paths.
        image_size: side in pixels for all; 0: as each wants it.
        seed: of random weights.

    Raises:
        WeightsError: a file holds no encoder, an unknown architecture, or another number of names than of encoders.
    """
    if names and len(set(names)) != len(given):
        raise WeightsError(f"--names gives {len(set(names))} names to {len(given)} encoders: give each one its own.")
    known = [_settings(one, photographs) for one in given]
    told = next((size for _, size in known if size), IMAGE_SIZE)
    found = []
    for text, name, (settings, size) in zip(given, names or short_names(given), known, strict=True):
        found.append(_built(name, text, settings, image_size or size or told, seed))
    have = {one.fed for one in found if one.random}
    for one in list(found):
        if one.fed not in have:
            have.add(one.fed)
            found.append(_random(_random_name(one, found), one.settings, seed))
    return found


def _random_name(own: FeatureEncoder, found: Sequence[FeatureEncoder]) -> str:
    """The architecture, and in what its input or pooling differs from random weights of it that are there already."""
    alike = [one.fed for one in found if one.random and one.fed[0] == own.fed[0]]
    words = own.fed[0], own.fed[1], f"{own.fed[2]} pixels", _POOLINGS.get(own.fed[3], own.fed[3])
    differing = [word for i, word in enumerate(words) if any(other[i] != own.fed[i] for other in alike)]
    return f"random {own.fed[0]}" + (f" ({', '.join(differing)})" if differing else "")


def refuse_missing(given: Sequence[str]) -> None:
    """Notice a wrong word of a command line before any image is read, which may take an hour.

    Args:
        given: as `read_encoders` takes them.

    Raises:
        WeightsError: there is no such file or architecture.
    """
    for one in given:
        if one.startswith(SCRATCH):
            _architecture(one)
        else:
            existing_path(one)


def short_names(given: Sequence[str]) -> list[str]:
    """The folder of each file, or as many folders as tell them apart; "random ARCHITECTURE" for random weights."""
    parts = [_parts(one) for one in given]
    names = [""] * len(given)
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _parts(text: str) -> list[str]:
    if text.startswith(SCRATCH):
        return [f"random {text.removeprefix(SCRATCH)}"]
    parts = list(Path(text).parts)
    if len(parts) > 1 and parts[-1] in ("encoder.safetensors", "encoder.json", "model.pt"):
        parts = parts[:-1]
    return parts[:-1] if len(parts) > 1 and parts[-1] == "models" else parts


def _settings(text: str, photographs: bool) -> tuple[EncoderSettings, int]:
    """Settings of an encoder, and the size that its card or its run names, 0 where none does."""
    if text.startswith(SCRATCH):
        return EncoderSettings(_architecture(text), "rgb" if photographs else "windows", IMAGE_SIZE, "token"), 0
    run = {} if photographs else _run_settings(Path(text))
    channels = str(run.get("channels", "rgb" if photographs else "windows"))
    facts = encoder_facts(text)
    settings = encoder_settings(text, facts.card.architecture, channels, IMAGE_SIZE, "token")
    own = facts.card.weights_hash != "" or encoder_spec(facts.card.architecture).family == "vit"
    size = run.get("image_size", facts.card.image_size if own else 0)
    return settings, size if isinstance(size, int) else 0


def _architecture(text: str) -> str:
    name = text.removeprefix(SCRATCH)
    if name not in encoder_names():
        raise WeightsError(f"There is no encoder {name!r}: choose one of {', '.join(encoder_names())}.")
    return name


def _run_settings(file: Path) -> dict[str, Any]:
    """What the run of a ``models/model.pt`` wrote down of its input."""
    config = file.parent.parent / "config.json"
    if file.parent.name != "models" or not config.is_file():
        return {}
    try:
        written = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    allowed = ("windows", "single", "neighbours")
    found = {name: written[name] for name in ("channels", "image_size") if name in written}
    return found if found.get("channels", "windows") in allowed else {}


def _built(name: str, text: str, settings: EncoderSettings, size: int, seed: int) -> FeatureEncoder:
    fed = EncoderSettings(
        settings.encoder_name, settings.channels, size, settings.pooling, settings.card, settings.file
    )
    check_size(fed)
    if text.startswith(SCRATCH):
        return _random(name, fed, seed)
    encoder = load_encoder(text)
    wanted, count = int(encoder.card.in_channels), channels_count(fed.channels)  # type: ignore[union-attr, arg-type]
    if wanted != count:
        raise WeightsError(
            f"{text} has {wanted} input channels and gets {count} of {fed.channels} here: change it by "
            "`ssl-transfer weights convert --in-channels`."
        )
    return FeatureEncoder(name, encoder, fed, text, encoder_facts(text).sha256)


def _random(name: str, settings: EncoderSettings, seed: int) -> FeatureEncoder:
    fed = EncoderSettings(settings.encoder_name, settings.channels, settings.image_size, settings.pooling)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(fed.encoder_name, channels_count(fed.channels), fed.image_size, pooling=fed.pooling)
    return FeatureEncoder(name, encoder.eval(), fed, "random weights")


def check_size(settings: EncoderSettings) -> None:
    """Refuse a size that a ViT cannot be fed.

    Raises:
        WeightsError: if it is no multiple of the patch.
    """
    spec = encoder_spec(settings.encoder_name)
    if spec.family == "vit" and settings.image_size % spec.patch_size:
        fitting = max(1, settings.image_size // spec.patch_size) * spec.patch_size
        raise WeightsError(
            f"{settings.encoder_name} needs images of a multiple of {spec.patch_size} pixels, not "
            f"{settings.image_size}: give --image-size {fitting}."
        )
