"""What the README of an exported encoder says, from its card: how it was made, of what, and what it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from monai_ssl_transfer.export.network_facts import NetworkFacts
from monai_ssl_transfer.export.settings import plain

_POOLED = {"token": ", a ViT's class token", "mean": ", the mean of a ViT's patch tokens"}
_TABLE = re.compile(
    r"(`OUT/embeddings\.parquet` has.*?)(?=^`model\.pt` and `encoder\.json`|\Z)", re.MULTILINE | re.DOTALL
)


def encoder_description(card: Mapping[str, Any], network: NetworkFacts) -> str:
    """The method, and what it gives.

    Args:
        card: of the encoder.
        network: what trying it showed.
    """
    method = card.get("method", {})
    options = f" ({method['options']})" if method.get("options") else ""
    counted = "epochs" in method and "of_epochs" in method
    epochs = f", {method['epochs']} of {method['of_epochs']} epochs" if counted else ""
    before = f" after {method['earlier_epochs']} of an earlier run" if method.get("earlier_epochs") else ""
    pooled = _POOLED.get(card.get("pooling", ""), "")
    return (
        f"Pretrained without labels by {method.get('name', 'an unknown method')}{options}{epochs}{before}; inference "
        f"writes one embedding of {network.out_channels} numbers per image to a table{pooled}."
    )


def encoder_sections(found: Mapping[str, str], card: Mapping[str, Any], network: NetworkFacts) -> dict[str, str]:
    """The sections of the bundle's README that its card knows better.

    Args:
        found: the bundle's own sections.
        card: of the encoder.
        network: what trying it showed.
    """
    side, channels = card["image_size"], card["in_channels"]
    size = f"{channels} x {side} x {side}"
    data = _counted(card.get("data") or {})
    views = "\n".join(f"- {_view(one)}" for one in card.get("recipe", {}).get("views", ()))
    scaled = f"minus {plain(list(card['mean']))}, divided by {plain(list(card['std']))}"
    form = f"{card.get('channels') or 'unnamed'} ({channels}), {_windows(card)}{scaled}"
    used = found.get("Training configuration", "")
    optimizer = "\n".join(
        line for line in used.partition("\n### ")[0].splitlines() if not line.startswith("- Actual model input")
    )
    known = found.get("Performance", "")
    return {
        "Data": (
            f"The card of the encoder says of the images of its pretraining: {data or 'nothing'}. None of them come "
            f"along.\n\n### Preprocessing\n\nInput channels: {form}. Views of the pretraining:\n\n{views}"
        ),
        "Training configuration": (
            f"{optimizer.strip()}\n\n### Input\n\nOne image, {size}, float32\n\n### Output\n\nOne embedding of "
            f"{network.out_channels} numbers"
        ),
        "Performance": re.sub(r"It depends on the data; .*?(?=`evaluate)", "", known, flags=re.DOTALL)
        .replace("for\nfinished weights", "of labelled images that you have")
        .replace("computes it", "computes kNN accuracy"),
    }


def table_text(commands: str) -> str:
    """What the bundle's own text says of the table that inference writes, and of the privacy of its names.

    Args:
        commands: the bundle's own section of commands.
    """
    found = _TABLE.search(commands)
    return "### The table of embeddings\n\n" + (found.group(1).strip() if found else "See inference.json.")


def _counted(data: Mapping[str, Any]) -> str:
    return "; ".join(f"{str(name).replace('_', ' ')}: {plain(value)}" for name, value in data.items() if value)


def _view(view: Mapping[str, Any]) -> str:
    return ", ".join(f"{str(name).replace('_', ' ')} {plain(value)}" for name, value in view.items() if value)


def _windows(card: Mapping[str, Any]) -> str:
    found = ", ".join(f"{level:g}/{width:g}" for level, width in card.get("windows") or ())
    return f"windows of HU (level/width) {found}, scaled to [0, 1], " if found else ""
