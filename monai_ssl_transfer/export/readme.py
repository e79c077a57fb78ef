"""``docs/README.md`` of an exported bundle: the bundle's own text, filled with what this run is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from monai_ssl_transfer import __version__
from monai_ssl_transfer.export.licences import Provenance
from monai_ssl_transfer.export.metadata import flat_metrics
from monai_ssl_transfer.export.network_facts import NetworkFacts
from monai_ssl_transfer.export.run_folder import ENCODER, ENCODER_FOLDER, Evaluation

UNMEASURED = (
    "Nothing is measured of these weights: run train.json with evaluate.json on held-out data and export again with "
    "--evaluation FOLDER."
)
_SHOWN = (
    "image_size", "pixel_spacing", "channels", "class_names", "class_labels", "task", "epochs", "batch_size",
    "learning_rate", "encoder_learning_rate_factor", "layer_decay", "decoder_first_epochs", "adaptation", "precision",
    "label_fraction", "validation_fraction", "seed", "method_name", "encoder_name", "pooling",
)  # fmt: skip
"""Settings that the table of the training shows, where the run has them."""
_SECTION = re.compile(r"^## ", re.MULTILINE)


@dataclass(frozen=True)
class ReadmeFacts:
    """What the text is filled from.

    Args:
        name: of the bundle.
        train: merged configuration of the training.
        inference: merged configuration of the inference.
        metadata: as exported.
        network: what trying the network showed.
        evaluation: what was measured.
        origin: of the weights.
    """

    name: str
    train: Mapping[str, Any]
    inference: Mapping[str, Any]
    metadata: Mapping[str, Any]
    network: NetworkFacts
    evaluation: Evaluation | None
    origin: Provenance


def filled_readme(template: str, facts: ReadmeFacts) -> str:
    """Fill a bundle's README from a run.

    Args:
        template: README of the bundle that was run.
        facts: of the run.
    """
    head, *sections = _SECTION.split(template)
    found = {part.partition("\n")[0].strip(): part.partition("\n")[2].strip("\n") for part in sections}
    title, _, rest = head.partition("\n")
    described = next((name for name in found if name.lower() == "model description"), "Model description")
    found[described] = f"{_model(facts)}\n\n{found.get(described, '')}".rstrip()
    found["Performance"] = _performance(found.get("Performance", ""), facts.evaluation)
    found["Training configuration"] = _training(found.get("Training configuration", ""), facts)
    found["Commands"] = _commands(facts)
    found["Limitations"] = found.get("Limitations", "Research only, not for clinical use.") + "\n\n" + _script(facts)
    ours = "\n".join(f"- {line}" for line in facts.origin.sentences())
    stated = "\n\nThe person who exported the bundle states the right to hand these weights on."
    found["Provenance of the weights"] = ours + (stated if facts.origin.right_stated else "")
    found["License"] = (
        "Code: Apache-2.0, see LICENSE. Weights: as their sources (provenance, above) and the training data allow; see "
        "docs/data_license.txt."
    )
    if "Data" in found:
        found["Data"] = re.sub(r"No data and no weights\s+come", "No data come", found["Data"])
    last = [name for name in ("References", "License") if name in found]
    order = [name for name in found if name not in last] + last
    body = "\n\n".join(f"## {name}\n{found[name]}" for name in order)
    version = f"Version {facts.metadata['version']}, made by monai-ssl-transfer {__version__}."
    return f"{title}\n{rest.rstrip()}\n\n{version}\n\n{body}\n"


def _performance(text: str, evaluation: Evaluation | None) -> str:
    text = re.sub(r"This bundle ships no weights;\s+`evaluate.json` measures yours", "`evaluate.json` measures", text)
    if evaluation is None:
        return f"{UNMEASURED}\n\n{text}"
    settings = ", ".join(f"{name} {value}" for name, value in evaluation.settings.items())
    rows = "\n".join(_rows(flat_metrics(evaluation.summary)))
    measured = f"Measured on these weights{f' ({settings})' if settings else ''}:"
    return f"{measured}\n\n| metric | value | SD | n |\n|---|---|---|---|\n{rows}\n\n{text}"


def _rows(metrics: Mapping[str, float]) -> Iterator[str]:
    for name, value in metrics.items():
        if name.endswith(("_sd", "_n")) and name.rpartition("_")[0] in metrics:
            continue
        spread = (metrics.get(f"{name}_sd"), metrics.get(f"{name}_n"))
        cells = (name.replace("_", " "), f"{value:.4g}", *("" if one is None else f"{one:.4g}" for one in spread))
        yield f"| {' | '.join(cells)} |"


def _training(text: str, facts: ReadmeFacts) -> str:
    rows = [f"| {name} | {_plain(facts.train[name])} |" for name in _SHOWN if name in facts.train]
    lead = "This model was trained with"
    defaults = f"\n\nThe bundle's defaults, where the table says nothing else:\n{text}" if text else ""
    return f"{lead}\n\n| setting | value |\n|---|---|\n" + "\n".join(rows) + defaults


def _model(facts: ReadmeFacts) -> str:
    network = facts.inference["network_def"]
    name = f"`{network['_target_']}`" if isinstance(network, Mapping) else "a network"
    details = ", ".join(f"{key} {network[key]}" for key in ("backbone", "encoder", "decoder", "name") if key in network)
    stock = "" if str(network["_target_"]).startswith("monai.") else ", its code in `scripts`"
    text = f"This model: {name}{f' ({details})' if details and '@' not in details else ''}{stock}"
    return f"{text}; {facts.network.parameters:,} parameters. What follows describes the bundle whatever its network."


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        shown = {key: one for key, one in value.items() if key == "_target_" or not str(key).startswith("_")}
        return ", ".join(f"{key} {one}" for key, one in shown.items())
    return str(value)


def _commands(facts: ReadmeFacts) -> str:
    configs = f"{facts.name}/configs"
    needed = " ".join(
        [f"monai=={facts.metadata['monai_version']}"]
        + [f"{name}=={version}" for name, version in facts.metadata["required_packages_version"].items()]
    )
    judged = _judged(facts.name, facts.train)
    both = f"\"['{configs}/train.json','{configs}/evaluate.json']\""
    run = "python -m monai.bundle run --config_file"
    read = f"python -c \"import torch; network = torch.jit.load('{facts.name}/models/model.ts')\""
    script = f"\n\n# TorchScript\n{read}" if facts.network.script is not None else ""
    return (
        "From the folder that holds this bundle, from any other with the paths changed:\n```sh\n"
        f"# inference: MONAI and these packages\npip install {needed}\n"
        f"{run} {configs}/inference.json --bundle_root {facts.name} --dataset_dir FOLDER --output_dir OUT\n\n"
        "# evaluation and training on your data: pip install monai-ssl-transfer\n"
        f"{run} {both} --bundle_root {facts.name} --dataset_dir DATA --output_dir EVALUATION{judged}\n"
        f"{run} {configs}/train.json --bundle_root {facts.name} --dataset_dir DATA --output_dir RUN{script}\n```\n"
        "Configs and overlays run as code: use only those that you trust."
    )


def _judged(name: str, train: Mapping[str, Any]) -> str:
    """What to evaluate on data that the run did not divide."""
    if "method_name" in train:
        return f" --encoder_weights {name}/{ENCODER_FOLDER}/{ENCODER}"
    if "validation_cases" in train:
        return " --validation_cases \"['CASE', 'CASE']\""
    return " --run_dir RUN" if "label_field" in train else " --evaluate_part all"


def _script(facts: ReadmeFacts) -> str:
    if facts.network.script is not None:
        return "TorchScript: `models/model.ts` gives the same output as `models/model.pt`."
    return f"TorchScript is not supported, so there is no `models/model.ts`: {facts.network.no_script}."
