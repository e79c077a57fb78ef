"""The snippets of docs/use-the-encoder.md, run in their order in one process, as a reader would paste them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.views.windows import channel_windows, normalisation
from monai_ssl_transfer.weights import EncoderCard, save_encoder

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "use-the-encoder.md"
SIDE = 64


def pretrained(folder: Path, name: str, channels: str) -> None:
    """What a run leaves; with statistics and gains that differ from a fresh network's, so that a loss would be seen."""
    encoder = build_encoder(name, image_size=SIDE)
    for key, tensor in encoder.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.add_(torch.rand_like(tensor) * (0.2 if key.endswith(("weight", "var")) else 0.05))
    mean, std = normalisation(channels)
    windows = tuple((window.level, window.width) for window in channel_windows(channels))
    save_encoder(encoder, folder, EncoderCard(name, 3, channels, windows, mean, std, image_size=SIDE))
    torch.save(encoder.state_dict(), folder / "model.pt")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    pretrained(tmp_path / "ct", "resnet50", "windows")
    pretrained(tmp_path / "endoscopy", "vit_tiny", "rgb")
    for bundle in ("ct_ssl_pretraining", "endoscopy_ssl_pretraining"):
        shutil.copytree(ROOT / "bundles" / bundle / "configs", tmp_path / "bundles" / bundle / "configs")
    rng = np.random.default_rng(0)
    for number in range(8):
        file = tmp_path / "photographs" / f"patient{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_snippet_runs(place: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    snippets = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(snippets) > 10
    for snippet in snippets:
        # its own lines, so that a traceback shows the place in the page
        lines = "\n" * text[: snippet.start(1)].count("\n")
        exec(compile(lines + snippet[1], str(PAGE), "exec"), names)
        assert "assert" in snippet[1] or "arrived" in snippet[1] or "run(" in snippet[1], snippet[1]
