"""``docs/README.md`` of an exported bundle: the bundle's own text, filled with what this run is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ssl_transfer import __version__
from monai_ssl_transfer.export.figures import Figure, counts, figures
from monai_ssl_transfer.export.licences import Provenance
from monai_ssl_transfer.export.network_facts import NetworkFacts
from monai_ssl_transfer.export.readme_commands import commands_text
from monai_ssl_transfer.export.readme_encoder import encoder_description, encoder_sections, table_text
from monai_ssl_transfer.export.run_folder import Evaluation, FinishedRun
from monai_ssl_transfer.export.settings import plain, resolved, shown_settings
from monai_ssl_transfer.export.statements import Statements

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
_NAMING = ("backbone", "encoder", "decoder", "name")
_OF_A_NETWORK = re.compile(
    r"resnet|unet|u-net|vit\b|vision transformer|deeplab|dpt|faster|fpn|encoder|decoder|overlay|configs/networks", re.I
)
_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z`])")
_SECTION = re.compile(r"^## ", re.MULTILINE)


@dataclass(frozen=True)
class ReadmeFacts:
    """What the text is filled from.

    Args:
        name: of the bundle.
        run: that is handed out.
        bundle: the bundle's own ``train.json``.
        inference: merged configuration of the inference, as it is exported.
        metadata: as exported.
        network: what trying the network showed.
        evaluation: what was measured.
        origin: of the weights.
        stated: what the person who exports says of data and use.
    """

    name: str
    run: FinishedRun
    bundle: Mapping[str, Any]
    inference: Mapping[str, Any]
    metadata: Mapping[str, Any]
    network: NetworkFacts
    evaluation: Evaluation | None
    origin: Provenance
    stated: Statements


def filled_readme(template: str, facts: ReadmeFacts) -> str:
    """Fill a bundle's README from a run.

    Args:
        template: README of the bundle that was run.
        facts: of the run.
    """
    settings = shown_settings(facts.run)
    if isinstance(facts.inference.get("class_names"), list):
        settings["class_names"] = facts.inference["class_names"]
    head, *sections = _SECTION.split(template)
    found = {part.partition("\n")[0].strip(): part.partition("\n")[2].strip("\n") for part in sections}
    title, _, rest = head.partition("\n")
    rest = rest.replace("Authors: monai-ssl-transfer authors.", f"Authors: {facts.metadata['authors']}.")
    if "Authors" in found:
        found["Authors"] = facts.metadata["authors"]
    described = next((name for name in found if name.lower() == "model description"), "Model description")
    commands = found.get("Commands", "")
    if facts.run.pretraining:
        found |= encoder_sections(found, facts.run.card, facts.network)
        found[described] = f"{_model(facts, settings)}\n\n{encoder_description(facts.run.card, facts.network)}"
    else:
        found[described] = f"{_model(facts, settings)}\n\n{_described(found.get(described, ''), facts)}".rstrip()
        for name in found.keys() & {"Data", "Training configuration"}:
            found[name] = _of_this_size(found[name], facts, settings)
    data = re.sub(r"No data and no weights\s+come", "No data come", found.get("Data", ""))
    found["Data"] = f"{facts.stated.data()}\n\n{data}".rstrip()
    found["Performance"] = _performance(found.get("Performance", ""), facts.evaluation)
    found["Training configuration"] = _training(found.get("Training configuration", ""), facts, settings)
    found["Commands"] = commands_text(facts.name, facts.run, facts.metadata, facts.network.script is not None)
    if facts.run.pretraining:
        found["Commands"] += f"\n\n{table_text(commands)}"
    found["Limitations"] = found.get("Limitations", "Research only, not for clinical use.") + "\n\n" + _script(facts)
    found["Intended use"] = facts.metadata["intended_use"]
    ours = "\n".join(f"- {line}" for line in facts.origin.sentences())
    stated = "\n\nThe person who exported the bundle states the right to hand these weights on."
    found["Provenance of the weights"] = ours + (stated if facts.origin.right_stated else "")
    found["License"] = (
        "Code: Apache-2.0, see LICENSE. Weights: as their sources (provenance, above) and the training data allow "
        f"(their licence: {facts.metadata['data_licence']}); see docs/data_license.txt."
    )
    last = [name for name in ("References", "License") if name in found]
    order = [name for name in found if name not in last] + last
    body = "\n\n".join(f"## {name}\n{found[name]}" for name in order)
    version = f"Version {facts.metadata['version']}, made by monai-ssl-transfer {__version__}."
    return f"{title}\n{rest.rstrip()}\n\n{version}\n\n{body}\n"


def _performance(text: str, evaluation: Evaluation | None) -> str:
    text = re.sub(r"This bundle ships no weights;\s+`evaluate.json` measures yours", "`evaluate.json` measures", text)
    if evaluation is None:
        return f"{UNMEASURED}\n\n{text}"
    settings = ", ".join(
        f"{name} {value}" for name, value in (evaluation.settings | counts(evaluation.summary)).items()
    )
    rows = "\n".join(_row(one) for one in figures(evaluation.summary))
    measured = f"{evaluation.on_what()}{f' Settings and counts: {settings}.' if settings else ''}"
    return f"{measured}\n\n| metric | value | SD | n |\n|---|---|---|---|\n{rows}\n\n{text}"


def _row(figure: Figure) -> str:
    spread = "" if figure.sd is None else f"{figure.sd:.4g}"
    number = "" if figure.n is None else str(figure.n)
    return f"| {figure.name.replace('_', ' ')} | {figure.value:.4g} | {spread} | {number} |"


def _training(text: str, facts: ReadmeFacts, settings: Mapping[str, Any]) -> str:
    values = {name: plain(settings[name]) for name in _SHOWN if name in settings}
    done, asked = facts.run.epochs
    if done is not None and done != asked:
        values["epochs"] = f"{done} of {asked}"
    elif done is None and "epochs" in values:
        values["epochs"] += " asked for; how many were run is not recorded"
    rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
    unfinished = "\n\nThe training stopped before its end (on purpose, or interrupted)." if facts.run.unfinished else ""
    defaults = f"\n\nThe bundle's defaults, where the table says nothing else:\n{text}" if text else ""
    return f"This model was trained with\n\n| setting | value |\n|---|---|\n{rows}{unfinished}{defaults}"


def _model(facts: ReadmeFacts, settings: Mapping[str, Any]) -> str:
    network = facts.inference["network_def"]
    target = str(network["_target_"])
    trained = resolved(facts.run.config.get("network_def", {}), settings) or {}
    if facts.run.pretraining:
        trained = {"encoder": facts.run.card["architecture"]}
    details = ", ".join(f"{key} {trained[key]}" for key in _NAMING if isinstance(trained.get(key), str))
    place = ", its code in `scripts`" if target.startswith("scripts.") else ", of the package monai-ssl-transfer"
    place = "" if target.startswith("monai.") else place
    named = f" ({details})" if details else ""
    return f"This model: `{target}`{named}{place}; {facts.network.parameters:,} parameters."


def _described(text: str, facts: ReadmeFacts) -> str:
    """The bundle's own words on its network, without those on another network than this one."""
    if facts.run.config.get("network_def") == facts.bundle.get("network_def"):
        return text
    return " ".join(one for one in _SENTENCE.split(text) if not _OF_A_NETWORK.search(one))


def _of_this_size(text: str, facts: ReadmeFacts, settings: Mapping[str, Any]) -> str:
    """The sizes that the bundle's text says are its defaults."""
    for name, form in (("image_size", "{0} x {0}"), ("pixel_spacing", "{0:g} mm")):
        own, this = facts.bundle.get(name), settings.get(name)
        if isinstance(own, int | float) and isinstance(this, int | float):
            text = re.sub(rf"\b{re.escape(form.format(own))}", form.format(this), text)
    return text


def _script(facts: ReadmeFacts) -> str:
    if facts.network.script is not None:
        return "TorchScript: `models/model.ts` gives the same output as `models/model.pt`."
    return f"TorchScript is not supported, so there is no `models/model.ts`: {facts.network.no_script}."
