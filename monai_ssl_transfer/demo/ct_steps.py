"""The CT demo's steps that run bundles; functions of plain arguments, so that worker processes can run them."""

from __future__ import annotations

import json
from pathlib import Path

from monai_ssl_transfer.demo.plan import CTPlan
from monai_ssl_transfer.demo.steps import encoder_of, knn_scores, one_thread_and_log, run_bundle, run_folder

LIVER = "bundles/ct_liver_segmentation/configs"
NETWORK = "configs/networks/unet_resnet18.json"


def pretrain(out: Path, plan: CTPlan) -> None:
    """Pretrain the encoder on the unlabelled slices."""
    with one_thread_and_log(out / "logs" / "pretraining.txt"):
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
        scores = knn_scores(out / "store", "windows", plan.pretraining["image_size"], None)
        (out / "pretraining" / "random_knn.json").write_text(json.dumps(scores))


def transfer(out: Path, plan: CTPlan, parts: dict[str, list[str]], arm: str, seed: int) -> None:
    """Fine-tune one arm with one seed, evaluate it on the test cases; the first seed also writes their masks."""
    folder = run_folder(out, arm, seed)
    common = {
        **plan.transfer,
        "dataset_dir": str(out / "phantoms" / "lits"),
        "seed": seed,
        **{f"{part}_cases": names for part, names in parts.items()},
    }
    with one_thread_and_log(out / "logs" / f"{arm}_{seed}.txt"):
        run_bundle(
            [f"{LIVER}/train.json", NETWORK],
            output_dir=str(folder),
            cache_dir=str(out / "cache"),
            encoder_weights=encoder_of(out, arm),
            **common,
        )
        model = str(folder / "models" / "model.pt")
        run_bundle(
            [f"{LIVER}/train.json", f"{LIVER}/evaluate.json", NETWORK],
            model_file=model,
            output_dir=str(folder / "test"),
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
