"""``metadata.json`` of an exported bundle: what was measured, with which versions, on which input."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from monai_ssl_transfer import __version__
from monai_ssl_transfer.export.figures import figures
from monai_ssl_transfer.export.licences import Provenance
from monai_ssl_transfer.export.network_facts import NetworkFacts
from monai_ssl_transfer.export.run_folder import Evaluation
from monai_ssl_transfer.export.statements import Statements
from monai_ssl_transfer.views.windows import channel_windows, normalisation
from monai_ssl_transfer.weights.input_channels import SCALED, SCALED_RANGES

_OWN_FIELDS = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
_COMMAND_LINE = "fire"
"""``python -m monai.bundle`` needs it, and installing MONAI does not bring it."""
_OF_TRAINING = {"monai-ssl-transfer", "lightly", "torchmetrics", "pycocotools"}
_CHANNELS = {
    "windows": ("soft tissue window", "lung window", "bone window"),
    "single": ("wide window",),
    "neighbours": ("slice below, soft tissue window", "slice, soft tissue window", "slice above, soft tissue window"),
    "rgb": ("red", "green", "blue"),
}


def exported_metadata(
    metadata: Mapping[str, Any],
    inference: Mapping[str, Any],
    facts: NetworkFacts,
    evaluation: Evaluation | None,
    origin: Provenance,
    libraries: Collection[str],
    stated: Statements,
) -> dict[str, Any]:
    """Fill the metadata of a bundle from a run.

    Args:
        metadata: of the bundle that was run, with the version of the exported one.
        inference: merged configuration.
        facts: of the network.
        evaluation: what was measured; ``None`` leaves ``eval_metrics`` empty.
        origin: of the weights.
        libraries: distributions that the code in ``scripts`` imports; none where it requires this package.
        stated: what the person who exports says of data and use.
    """
    filled, bundle_version = dict(metadata), str(metadata["version"])
    said = "trained weights, exported by monai-ssl-transfer " + __version__
    filled["changelog"] = {**metadata["changelog"], bundle_version: _added(metadata, bundle_version, said)}
    filled |= {field: _installed(name) for name, field in _OWN_FIELDS.items()}
    needed = set(metadata["required_packages_version"])
    if libraries:  # the bundle brings its code
        needed = (needed - _OF_TRAINING | set(libraries)) - _OWN_FIELDS.keys()
    else:
        needed -= _OF_TRAINING - {"monai-ssl-transfer"}
    filled["required_packages_version"] = {name: _installed(name) for name in sorted(needed | {_COMMAND_LINE})}
    filled["training_packages_version"] = {"monai-ssl-transfer": __version__}
    filled["eval_metrics"] = {} if evaluation is None else flat_metrics(evaluation.summary)
    filled["evaluated_on"] = "nothing" if evaluation is None else evaluation.on_what()
    filled |= stated.metadata(metadata)
    if origin.card and metadata["network_data_format"]["outputs"]["pred"]["format"] == "latent":
        method = origin.card.get("method", {}).get("name", "an unknown method")
        filled["description"] = (
            f"An encoder pretrained without labels by {method}; inference writes embeddings to a table."
        )
        filled["pred_classes"] = f"embedding of {facts.out_channels} numbers"
    filled["provenance"] = origin.to_json()
    filled["network_data_format"] = _data_format(metadata["network_data_format"], inference, facts)
    names = class_names(inference)
    if names:
        text = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        filled |= {"label_classes": text, "pred_classes": text}
    return filled


def _added(metadata: Mapping[str, Any], bundle_version: str, said: str) -> str:
    known = metadata["changelog"].get(bundle_version)
    return f"{known}; {said}" if known else said


def _installed(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:  # a build that is used from its source folder
        return __version__ if name == "monai-ssl-transfer" else "unknown"


def class_names(inference: Mapping[str, Any]) -> list[str]:
    """Names of the output channels, where the run names them."""
    names = inference.get("class_names")
    return [str(one) for one in names] if isinstance(names, list) else []


def flat_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation's summary by name, and their SD where there is one.

    Args:
        summary: of ``summary.json``.
    """
    found: dict[str, float] = {}
    for one in figures(summary):
        found[one.name] = one.value
        if one.sd is not None:
            found[f"{one.name}_sd"] = one.sd
    return found


def _data_format(template: Mapping[str, Any], inference: Mapping[str, Any], facts: NetworkFacts) -> dict[str, Any]:
    image, pred = dict(template["inputs"]["image"]), dict(template["outputs"]["pred"])
    channels = str(inference.get("channels", "rgb"))
    image["num_channels"] = facts.in_channels
    names = _CHANNELS.get(channels, ())
    if len(names) == facts.in_channels:
        image["channel_def"] = {str(number): name for number, name in enumerate(names)}
    if channels in SCALED:
        image |= {"format": "magnitude", "modality": "any", "value_range": list(SCALED_RANGES[channels])}
        image["channel_def"] = {str(number): f"modality, by {channels}" for number in range(facts.in_channels)}
    elif channels != "rgb" and channel_windows(channels):
        pairs = list(zip(*normalisation(channels), strict=True))
        image["value_range"] = [min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)]
    side = inference.get("image_size")
    fixed = not facts.any_size or not any(isinstance(one, str) for one in image["spatial_shape"])
    if fixed and side is not None:
        if pred["spatial_shape"] == image["spatial_shape"]:
            pred["spatial_shape"] = [side, side]
        image["spatial_shape"] = [side, side]
    if facts.out_channels is not None:
        classes = class_names(inference)
        if len(classes) == facts.out_channels:
            pred["channel_def"] = {str(number): name for number, name in enumerate(classes)}
        elif pred["num_channels"] != facts.out_channels and pred["format"] != "latent":
            pred["channel_def"] = {str(number): f"class {number}" for number in range(facts.out_channels)}
        pred["num_channels"] = facts.out_channels
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}
