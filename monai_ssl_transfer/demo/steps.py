"""The demo's steps that run bundles; each is a function of plain arguments, so that worker processes can run them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.demo.plan import DemoPlan, project_folder

LIVER = "bundles/ct_liver_segmentation/configs"
NETWORK = "configs/networks/unet_resnet18.json"


def run_bundle(files: Sequence[str], **overrides: Any) -> None:
    """Do what ``python -m monai.bundle run`` does, in this process: importing MONAI anew costs seconds each time.

    Args:
        files: configuration files relative to the project folder, the bundle's own first.
        overrides: ids to override, as on the command line.
    """
    from monai.bundle import ConfigWorkflow

    paths = [str(project_folder() / file) for file in files]
    workflow = ConfigWorkflow(config_file=paths, workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Folder of one fine-tuning run."""
    return out / "transfer" / arm / f"seed_{seed}"


def pretrain(out: Path, plan: DemoPlan) -> None:
    """Pretrain the encoder on the unlabelled slices."""
    with _one_thread_and_log(out / "logs" / "pretraining.txt"):
        run_bundle(
            [
                "bundles/ct_ssl_pretraining/configs/train.json",
                "configs/encoders/resnet18.json",
                "configs/scale/small_store.json",
            ],
            dataset_dir=str(out / "store"),
            output_dir=str(out / "pretraining"),
            **plan.pretraining,
        )
        write_random_knn(out, plan.pretraining["image_size"])


def write_random_knn(out: Path, image_size: int) -> None:
    """Write the kNN accuracy of an encoder that has learned nothing: the mark that pretraining must pass."""
    import torch

    from monai_ssl_transfer.engines.knn import KNNOptions, OnlineKNNHandler
    from monai_ssl_transfer.networks import build_encoder

    torch.manual_seed(0)
    handler = OnlineKNNHandler(build_encoder("resnet18"), out / "store", options=KNNOptions(image_size=image_size))
    (out / "pretraining" / "random_knn.json").write_text(json.dumps(handler.scores("cpu")))


def transfer(out: Path, plan: DemoPlan, parts: dict[str, list[str]], arm: str, seed: int) -> None:
    """Fine-tune one arm with one seed, evaluate it on the test cases; the first seed also writes their masks."""
    folder = run_folder(out, arm, seed)
    encoder = str(out / "pretraining" / "encoder.safetensors") if arm == "pretrained" else None
    common = {
        **plan.transfer,
        "dataset_dir": str(out / "phantoms" / "lits"),
        "seed": seed,
        "train_cases": parts["train"],
    }
    with _one_thread_and_log(out / "logs" / f"{arm}_{seed}.txt"):
        run_bundle(
            [f"{LIVER}/train.json", NETWORK],
            output_dir=str(folder),
            cache_dir=str(out / "cache"),
            encoder_weights=encoder,
            validation_cases=parts["validation"],
            **common,
        )
        model = str(folder / "models" / "model.pt")
        run_bundle(
            [f"{LIVER}/train.json", f"{LIVER}/evaluate.json", NETWORK],
            model_file=model,
            output_dir=str(folder / "test"),
            validation_cases=parts["test"],
            **common,
        )
        if seed == plan.seeds[0]:
            for case in parts["test"][: plan.shown]:
                run_bundle(
                    [f"{LIVER}/inference.json", NETWORK],
                    dataset_dir=str(out / "phantoms" / "lits" / f"volume-{case}.nii.gz"),
                    output_dir=str(folder / "masks"),
                    model_file=model,
                    pixel_spacing=plan.transfer["pixel_spacing"],
                )


@contextlib.contextmanager
def _one_thread_and_log(file: Path) -> Iterator[None]:
    """One thread, as OpenMP threads wait for each other when processes share cores; output goes to a file."""
    import torch

    torch.set_num_threads(1)
    file.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=file, level=logging.INFO, force=True)
    with file.open("a") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield
