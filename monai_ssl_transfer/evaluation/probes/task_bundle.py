"""A probe in place of a bundle's training, for the overlays of ``configs/probes``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monai_ssl_transfer.engines.embedding.cache import cache_folder
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.protocol import Probe
from monai_ssl_transfer.evaluation.probes.task import EncoderSource
from monai_ssl_transfer.evaluation.probes.task_run import probe_parser

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def run_bundle_probe(
    parser: ConfigParser | None,
    probe: Probe,
    output_dir: str | Path,
    encoder_weights: str | Path | None,
    architecture: str,
    cache: str | None = "",
    average: str = "none",
) -> Path:
    """What the overlays of ``configs/probes`` put in place of a bundle's training.

    Args:
        parser: of the bundle that runs, see `running_parser`.
        probe: one of `PROBES`.
        output_dir: of the run.
        encoder_weights: file; None for random weights.
        architecture: of random weights.
        cache: as for `cache_folder`.
        average: "volume" judges volumes.

    Raises:
        DataError: called by something else than a configuration.
    """
    if parser is None:
        raise DataError("this probe is no part of a running configuration: call run_probe from Python.")
    scratch = encoder_weights is None or str(encoder_weights) in ("", "None", "none")
    seed = int(parser.get_parsed_content("seed"))
    file = None if scratch else Path(str(encoder_weights))
    source = EncoderSource(architecture if file is None else file.stem, file, architecture, seed)
    device = str(parser.get_parsed_content("device"))
    return probe_parser(parser, source, probe, Path(output_dir), cache_folder(cache), device, average)
