"""The initialisations of a study's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from monai_ssl_transfer.study.planning.matrix import DataStep, Initialisation, Pretraining
from monai_ssl_transfer.study.planning.named_files import (
    NUMBER,
    named_bundle,
    named_folder,
    named_overlays,
    named_weights,
)
from monai_ssl_transfer.study.planning.strict_yaml import StrictSection


def read_initialisations(
    top: StrictSection, encoder: str, data: Mapping[str, DataStep], protocols: tuple[str, ...]
) -> dict[str, Initialisation]:
    """Return the initialisations by name, those first that others are compared with."""
    reference = top.take("reference", str)
    section = top.section("initialisations")
    found: dict[str, Initialisation] = {}
    for name, value in section.content.items():
        if value is None or isinstance(value, str):
            section.take(name, (str, type(None)))
            weights = None if value is None else named_weights(section, value, name)
            found[name] = Initialisation(name, encoder, weights, reference=reference)
        else:
            found[name] = _initialisation(name, section.section(name), encoder, reference, data, protocols)
        if not found[name].encoder:
            raise section.error("has no encoder: set it here or at the top of the file", name)
    for one in found.values():
        if one.reference and one.reference not in found:
            raise top.error(f"compares with '{one.reference}', which is no initialisation", "reference")
    wanted = {one.reference for one in found.values()}
    return {
        name: one if one.reference != name else _without_reference(one)
        for name, one in sorted(found.items(), key=lambda pair: pair[0] not in wanted)
    }


def _without_reference(one: Initialisation) -> Initialisation:
    return replace(one, reference="")


def _initialisation(
    name: str,
    part: StrictSection,
    encoder: str,
    reference: str,
    data: Mapping[str, DataStep],
    protocols: tuple[str, ...],
) -> Initialisation:
    weights = part.take("weights", (str, type(None)), None)
    pretraining = None
    if "pretrain" in part.content:
        if weights is not None:
            raise part.error("has weights and a pretraining: keep one of them", "weights")
        pretraining = _pretraining(part.section("pretrain"), data)
    found = Initialisation(
        name=name,
        encoder=part.take("encoder", str, encoder),
        weights=None if weights is None else named_weights(part, weights, "weights"),
        pretraining=pretraining,
        settings=dict(part.take("settings", dict, {})),
        tasks=part.texts("tasks", ()),
        protocols=part.texts("protocols", ()),
        reference=part.take("reference", str, reference),
    )
    unknown = sorted(set(found.protocols) - set(protocols))
    if unknown:
        raise part.error(f"names the protocol '{unknown[0]}': known are {', '.join(protocols)}", "protocols")
    part.done()
    return found


def _pretraining(part: StrictSection, data: Mapping[str, DataStep]) -> Pretraining:
    found = Pretraining(
        bundle=named_bundle(part),
        data=named_folder(part, part.take("data", str), "data", data),
        overlays=named_overlays(part),
        settings=dict(part.take("settings", dict, {})),
        seconds=part.take("seconds", NUMBER, None),
    )
    part.done()
    return found
