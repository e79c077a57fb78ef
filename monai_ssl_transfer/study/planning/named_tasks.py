"""The tasks and protocols of a study's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.planning.matrix import DataStep, Initialisation, StudyPlan, Task, TransferProtocol
from monai_ssl_transfer.study.planning.named_files import (
    NUMBER,
    find_file,
    named_bundle,
    named_file,
    named_folder,
    named_fractions,
    named_overlays,
)
from monai_ssl_transfer.study.planning.strict_yaml import StrictSection


def read_protocol(name: str, section: StrictSection) -> TransferProtocol:
    """Return one protocol: overlays as text or list, or a mapping with a probe or with settings."""
    value = section.content[name]
    if isinstance(value, str | list):
        overlays = tuple(named_file(section, one, name, "overlay") for one in section.texts(name))
        return TransferProtocol(name, overlays)
    part = section.section(name)
    settings = dict(part.take("settings", dict, {}))
    probe = part.take("probe", str, "")
    average = part.take("average", str, "none")
    if probe:
        _known_probe(part, probe, settings, average)
    overlays = named_overlays(part)
    if probe and overlays:
        raise part.error("has a probe and overlays: a probe trains no network, so keep one of them", "overlays")
    fractions = named_fractions(part, ()) if "fractions" in part.content else ()
    seconds = part.take("seconds", NUMBER, None)
    part.done()
    return TransferProtocol(name, overlays, settings, probe, average, fractions, seconds)


def _known_probe(part: StrictSection, probe: str, settings: dict[str, Any], average: str) -> None:
    from monai_ssl_transfer.evaluation.probes import PROBES

    if probe not in PROBES:
        raise part.error(f"names the probe '{probe}': choose one of {', '.join(PROBES)}", "probe")
    if average not in ("none", "volume"):
        raise part.error(f"has the average '{average}': choose none or volume", "average")
    from monai_ssl_transfer.evaluation.probes.task_options import probe_with

    try:
        probe_with(probe, settings)
    except DataError as error:
        raise part.error(f"is refused: {error}", "settings") from error


def read_task(
    name: str,
    part: StrictSection,
    fractions: tuple[float, ...],
    data: Mapping[str, DataStep],
    protocols: Mapping[str, TransferProtocol],
    initialisations: Mapping[str, Initialisation],
) -> Task:
    """Return one task; `encoders` of its initialisations choose the networks."""
    encoders = sorted({one.encoder for one in initialisations.values() if not one.tasks or name in one.tasks})
    chosen = part.texts("protocols", ())
    unknown = next((one for one in chosen if one not in protocols), None)
    if unknown is not None:
        raise part.error(f"names the protocol '{unknown}': known are {', '.join(protocols)}", "protocols")
    robustness = part.take("robustness", (dict, type(None)), None)
    unknown = next((key for key in robustness or {} if key not in ("corruptions", "severities", "seed")), None)
    if unknown is not None:
        raise part.error(f"has '{unknown}' under robustness: known are corruptions, severities, seed", "robustness")
    metrics = part.texts("metrics")
    task = Task(
        name=name,
        bundle=named_bundle(part),
        data=tuple(named_folder(part, one, "data", data) for one in part.texts("data")),
        overlays=named_overlays(part),
        networks=_networks(part, encoders),
        settings=dict(part.take("settings", dict, {})),
        metrics=metrics,
        primary=_primary(part, metrics),
        protocols=chosen,
        fractions=named_fractions(part, fractions),
        evaluation=dict(part.take("evaluation", dict, {})),
        robustness=robustness,
        seconds=part.take("seconds", NUMBER, None),
    )
    part.done()
    return task


def _primary(part: StrictSection, metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Metrics that are tested: the first one, or those that the task names."""
    if not metrics:
        raise part.error("has no metrics: name the one that is tested first", "metrics")
    primary = part.texts("primary", metrics[:1])
    unknown = next((one for one in primary if one not in metrics), None)
    if unknown is not None or not primary:
        raise part.error(f"tests '{unknown or ''}': choose among its metrics {', '.join(metrics)}", "primary")
    return primary


def _networks(part: StrictSection, encoders: list[str]) -> dict[str, str]:
    """Overlay by encoder, from a pattern with {encoder} or a mapping; one without a file is told where it is needed."""
    value = part.take("network", (str, dict), {})
    named = dict(value) if isinstance(value, dict) else {one: value.replace("{encoder}", one) for one in encoders}
    found = {}
    for encoder, text in named.items():
        if text is None:
            found[encoder] = ""  # the bundle's own
        elif isinstance(value, dict) or "{encoder}" not in value:
            found[encoder] = named_file(part, str(text), "network", "overlay")
        elif (path := find_file(text, part.file)) is not None:
            found[encoder] = str(path)
    return found


def need_networks(top: StrictSection, plan: StudyPlan) -> None:
    """Refuse a plan in which a cell has no network for its encoder."""
    for cell in plan.cells():
        task, encoder = plan.tasks[cell.task], plan.initialisations[cell.initialisation].encoder
        if not plan.protocols[cell.protocol].probe and encoder not in task.networks:
            part = top.section("tasks").section(cell.task)
            raise part.error(f"has no network for the encoder {encoder} that is there: name its overlay", "network")
