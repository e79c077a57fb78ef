"""The table of protocols in docs/transfer.md says what they train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_ssl_transfer.networks import build_classifier
from monai_ssl_transfer.networks.parts import inner_names

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = sorted(path.stem for path in (ROOT / "configs" / "protocols").glob("*.json"))


def table() -> dict[str, list[str]]:
    """The numbers for ViT-S and ResNet50, by protocol."""
    text = (ROOT / "docs" / "transfer.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[1].strip("`").removesuffix(".json"): row[3:5] for row in rows if row[1].strip("`").endswith(".json")}


def trained(encoder: str, protocol: str) -> int:
    """Parameters of the encoder that learn at some time under an overlay as it is."""
    parser = ConfigParser(json.loads((ROOT / "configs" / "protocols" / f"{protocol}.json").read_text()))
    parser["epochs"] = 20
    with torch.device("meta"):
        network = build_classifier(encoder)
        if (adaptation := parser.get_parsed_content("adaptation")) is not None:
            adaptation.apply(network)
    if parser.get_parsed_content("decoder_first_epochs") >= 20:
        return 0
    inner = inner_names(network)
    return sum(one.numel() for name, one in network.named_parameters() if name in inner and one.requires_grad)


@pytest.mark.parametrize(("column", "encoder"), enumerate(["vit_small", "resnet50"]))
def test_the_table_says_how_many_parameters_learn(column: int, encoder: str) -> None:
    assert {name: row[column] for name, row in table().items()} == {
        protocol: f"{trained(encoder, protocol):,}".replace(",", " ") for protocol in PROTOCOLS
    }
