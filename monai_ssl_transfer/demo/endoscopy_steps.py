"""The endoscopy demo's steps that run bundles; functions of plain arguments, so that worker processes can run them."""

from __future__ import annotations

import json
from pathlib import Path

from monai_ssl_transfer.demo.plan import EndoscopyPlan
from monai_ssl_transfer.demo.steps import encoder_of, knn_scores, one_thread_and_log, run_bundle, run_folder

POLYPS = "bundles/endoscopy_polyp_segmentation/configs"
NETWORK = "configs/networks/unet_resnet18.json"


def pretrain(out: Path, plan: EndoscopyPlan) -> None:
    """Pretrain the encoder on the unlabelled frames; judge it on labelled landmarks that it has not seen."""
    with one_thread_and_log(out / "logs" / "pretraining.txt"):
        run_bundle(
            [
                "bundles/endoscopy_ssl_pretraining/configs/train.json",
                "configs/encoders/resnet18.json",
                "configs/scale/few_frames.json",
            ],
            dataset_dir=str(out / "store"),
            output_dir=str(out / "pretraining"),
            **plan.pretraining,
        )
        scores = {
            name: knn_scores(out / "landmarks", "rgb", plan.pretraining["image_size"], weights)
            for name, weights in (("random", None), ("pretrained", out / "pretraining" / "encoder.safetensors"))
        }
        (out / "pretraining" / "knn.json").write_text(json.dumps(scores))


def transfer(out: Path, plan: EndoscopyPlan, arm: str, seed: int) -> None:
    """Fine-tune one arm with one seed, evaluate it on the test frames; the first seed also writes their masks."""
    folder = run_folder(out, arm, seed)
    dataset = out / "phantoms" / "kvasir-seg"
    common = {**plan.transfer, "dataset_dir": str(dataset), "seed": seed}
    with one_thread_and_log(out / "logs" / f"{arm}_{seed}.txt"):
        run_bundle(
            [f"{POLYPS}/train.json", NETWORK], output_dir=str(folder), encoder_weights=encoder_of(out, arm), **common
        )
        model = str(folder / "models" / "model.pt")
        run_bundle(
            [f"{POLYPS}/train.json", f"{POLYPS}/evaluate.json", NETWORK],
            model_file=model,
            output_dir=str(folder / "test"),
            **common,
        )
        if seed == plan.seeds[0]:
            run_bundle(
                [f"{POLYPS}/inference.json", NETWORK],
                dataset_dir=str(dataset / "images"),
                output_dir=str(folder / "masks"),
                model_file=model,
                image_size=plan.transfer["image_size"],
            )
