"""What the steps of every demo share: running a bundle in this process, its folder, one thread and a log file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.installation import project_folder


def run_bundle(files: Sequence[str], **overrides: Any) -> None:
    """Run a bundle in this process.

    Args:
        files: configuration files relative to the project folder, the bundle's own first.
        overrides: ids to override, as on the command line.
    """
    from monai_ssl_transfer.engines.bundle_run import run_bundle as run

    run([project_folder() / file for file in files], overrides)


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Folder of one fine-tuning run."""
    return out / "transfer" / arm / f"seed_{seed}"


def encoder_of(out: Path, arm: str) -> str | None:
    """The encoder that an arm starts from."""
    return str(out / "pretraining" / "encoder.safetensors") if arm == "pretrained" else None


def knn_scores(store: Path, channels: str, image_size: int, weights: Path | None) -> dict[str, float]:
    """kNN scores of an encoder on the labelled images of a store.

    Args:
        store: the store.
        channels: what the encoder sees.
        image_size: side in pixels.
        weights: of the encoder; None judges random weights, the mark that pretraining must pass.
    """
    import torch

    from monai_ssl_transfer.engines.pretraining.knn import KNNOptions, OnlineKNNHandler
    from monai_ssl_transfer.networks import build_encoder
    from monai_ssl_transfer.weights import load_encoder_weights

    torch.manual_seed(0)
    encoder = build_encoder("resnet18")
    if weights is not None:
        load_encoder_weights(encoder, weights)
    return OnlineKNNHandler(encoder, store, channels, options=KNNOptions(image_size=image_size)).scores("cpu")


@contextlib.contextmanager
def one_thread_and_log(file: Path) -> Iterator[None]:
    """One thread, as OpenMP threads wait for each other when processes share cores; output goes to a file."""
    import torch

    torch.set_num_threads(1)
    file.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=file, level=logging.INFO, force=True)
    with file.open("a") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield
