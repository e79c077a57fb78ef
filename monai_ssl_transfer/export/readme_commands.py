"""The commands of an exported bundle's README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ssl_transfer.export.run_folder import ENCODER, ENCODER_FOLDER, FinishedRun

_PACKAGE = "monai-ssl-transfer"


def commands_text(name: str, run: FinishedRun, metadata: Mapping[str, Any], scripted: bool) -> str:
    """What to type for inference, evaluation and training.

    Args:
        name: of the bundle.
        run: that is handed out.
        metadata: as exported.
        scripted: whether there is TorchScript.
    """
    configs, run_it = f"{name}/configs", "python -m monai.bundle run --config_file"
    packages = metadata["required_packages_version"]
    needed = " ".join(
        [f"monai=={metadata['monai_version']}"]
        + [f"{package}=={version}" for package, version in packages.items() if package != _PACKAGE]
    )
    source = f"{_PACKAGE} {metadata['training_packages_version'][_PACKAGE]} is not on PyPI: pip install . in its source"
    inference = f"# inference: MONAI and these packages\npip install {needed}\n"
    if _PACKAGE in packages:
        inference += f"# and this bundle's code; {source}\n"
    both = f"\"['{configs}/train.json','{configs}/evaluate.json']\""
    judged, begun = _judged(name, run.config), _begun(run)
    read = f"python -c \"import torch; network = torch.jit.load('{name}/models/model.ts')\""
    script = f"\n\n# TorchScript\n{read}" if scripted else ""
    place = f"--bundle_root {name}"
    return (
        f"From the folder that holds this bundle, from any other with the paths changed:\n```sh\n{inference}"
        f"{run_it} {configs}/inference.json {place} --dataset_dir FOLDER --output_dir OUT\n\n"
        f"# evaluation and training on your data; {source}\n"
        f"{run_it} {both} {place} --dataset_dir DATA --output_dir EVALUATION{judged}\n"
        f"{run_it} {configs}/train.json {place} --dataset_dir DATA --output_dir RUN{begun}{script}\n```\n"
        "Configs and overlays run as code: use only those that you trust."
    )


def _judged(name: str, train: Mapping[str, Any]) -> str:
    """What to evaluate on data that the run did not divide."""
    if "method_name" in train:
        return f" --encoder_weights {name}/{ENCODER_FOLDER}/{ENCODER}"
    return " --evaluate_part all"


def _begun(run: FinishedRun) -> str:
    """A training that began with an encoder is repeated with one; from the command line, as its file stays behind."""
    return " --encoder_weights FILE" if run.encoder is not None and run.encoder.get("file") else ""
