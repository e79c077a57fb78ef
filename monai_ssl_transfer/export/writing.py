"""The files of an exported bundle."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data import save_net_with_metadata

from monai_ssl_transfer.export.licences import Provenance
from monai_ssl_transfer.export.network_facts import NetworkFacts
from monai_ssl_transfer.export.readme import ReadmeFacts, filled_readme
from monai_ssl_transfer.export.run_folder import ENCODER, ENCODER_FOLDER, Evaluation, FinishedRun
from monai_ssl_transfer.export.source_closure import SourceClosure
from monai_ssl_transfer.export.statements import Statements
from monai_ssl_transfer.export.vendored import write_scripts

_AS_THEY_ARE = ("evaluate.json", "multi_gpu_train.json", "logging.conf")
_CARD = "encoder.json"
_HEAD = "projection_head.safetensors"


@dataclass(frozen=True)
class Parts:
    """All that is written, known before anything is written."""

    run: FinishedRun
    train: dict[str, Any]
    inference: dict[str, Any]
    closure: SourceClosure
    metadata: dict[str, Any]
    facts: NetworkFacts
    evaluation: Evaluation | None
    origin: Provenance
    bundle: dict[str, Any]
    stated: Statements


def write_bundle(name: str, source: Path, folder: Path, parts: Parts) -> None:
    """Write all files of a bundle.

    Args:
        name: of the bundle.
        source: folder of the bundle that was run.
        folder: that is written, empty.
        parts: what goes into it.
    """
    configs, models, docs = (folder / one for one in ("configs", "models", "docs"))
    for one in (configs, models, docs):
        one.mkdir()
    for file in _AS_THEY_ARE:
        if (source / "configs" / file).is_file():
            shutil.copyfile(source / "configs" / file, configs / file)
    for file, content in (("train", parts.train), ("inference", parts.inference), ("metadata", parts.metadata)):
        (configs / f"{file}.json").write_text(_json(content), encoding="utf-8")
    _write_weights(folder, models, parts)
    if parts.closure.wanted:
        write_scripts(parts.closure, folder)
    shutil.copyfile(source / "LICENSE", folder / "LICENSE")
    template = (source / "docs" / "README.md").read_text(encoding="utf-8")
    (docs / "data_license.txt").write_text(_data_licence(template, parts), encoding="utf-8")
    (docs / "provenance.json").write_text(_json(parts.origin.to_json()), encoding="utf-8")
    facts = ReadmeFacts(
        name, parts.run, parts.bundle, parts.inference, parts.metadata, parts.facts, parts.evaluation, parts.origin,
        parts.stated,
    )  # fmt: skip
    (docs / "README.md").write_text(filled_readme(template, facts), encoding="utf-8")


def _write_weights(folder: Path, models: Path, parts: Parts) -> None:
    shutil.copyfile(parts.run.weights, models / "model.pt")
    if parts.run.pretraining:  # with its card, for transfer; a second .pt in models would confuse MONAI Label
        (folder / ENCODER_FOLDER).mkdir()
        for file in (ENCODER, _HEAD):
            if (parts.run.folder / file).is_file():
                shutil.copyfile(parts.run.folder / file, folder / ENCODER_FOLDER / file)
        (folder / ENCODER_FOLDER / _CARD).write_text(_json(parts.run.card), encoding="utf-8")
    if parts.facts.script is not None:
        kept = {one: parts.metadata[one] for one in ("version", "network_data_format")}
        path, script = str(models / "model.ts"), parts.facts.script
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".torch\.jit\.")  # MONAI asks for it
            save_net_with_metadata(script, path, include_config_vals=False, append_timestamp=False, meta_values=kept)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def _data_licence(readme: str, parts: Parts) -> str:
    pretrained = "\n".join(f"- {line}" for line in parts.origin.sentences())
    return f"{parts.stated.data_licence_text(readme)}\nWeights that the training began with:\n{pretrained}\n"
