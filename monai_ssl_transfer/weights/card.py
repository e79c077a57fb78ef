"""The card of an encoder: what somebody who only has the file must know to use it rightly."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from monai_ssl_transfer.errors import WeightsError

CARD_FORMAT = 1


@dataclass(frozen=True)
class EncoderCard:
    """How an encoder was made and how to feed it; travels inside the weights file.

    Args:
        architecture: one of `networks.encoder_names()`.
        in_channels: channels of the input.
        channels: what the channels are: a name of `views.windows` ("windows", "single", "neighbours", "rgb"), or "bgr"
            of an encoder that was converted so; "" if unknown.
        windows: (level, width) in HU of every window, empty for RGB.
        mean: per channel, subtracted after scaling to [0, 1].
        std: per channel, divided by.
        image_size: side in pixels of the views of pretraining; recommended for transfer.
        pooling: what of a ViT is the embedding, its class "token" or the "mean" of its patch tokens; "" if unknown.
        method: name and options of the pretraining method.
        recipe: the views of pretraining.
        data: summary of the pretraining data (counts, body parts, ...), without anything personal.
        versions: of this package, torch, MONAI, ...
        source_hash: hash of the data (`SliceStore.content_hash`) or of the foreign file that the weights come from.
        licence: licence chain of weights and data.
        weights_hash: of all tensors; filled in when the encoder is saved and checked when it is read.
    """

    architecture: str
    in_channels: int = 3
    channels: str = ""
    windows: tuple[tuple[float, float], ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_size: int = 224
    pooling: str = "token"
    method: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    source_hash: str = ""
    licence: str = ""
    weights_hash: str = ""

    def to_json(self) -> str:
        """The card as indented JSON with its format number."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, indent=2, sort_keys=False) + "\n"

    @classmethod
    def from_json(cls, text: str, file: str) -> EncoderCard:
        """Read a card.

        Args:
            text: JSON written by `to_json`.
            file: where it comes from, for messages.

        Raises:
            WeightsError: if it is no card, or one of a newer format.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise WeightsError(f"{file} is not a card of an encoder ({error}): save the encoder again.") from error
        known = {entry.name for entry in fields(cls)}
        if not isinstance(values, dict) or "architecture" not in values:
            raise WeightsError(f"{file} is not a card of an encoder: it names no architecture; save the encoder again.")
        unknown = sorted(values.keys() - known - {"format"})
        if values.pop("format", CARD_FORMAT) != CARD_FORMAT or unknown:
            raise WeightsError(
                f"{file} was written in another format (unknown entries: {', '.join(unknown) or 'none'}): "
                "update monai-ssl-transfer or save the encoder again with this version."
            )
        values["windows"] = tuple(tuple(window) for window in values.get("windows", ()))
        for name in ("mean", "std"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)
