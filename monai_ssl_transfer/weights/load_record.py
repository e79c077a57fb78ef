"""The record of what an encoder started from, beside the run: `encoder_load.json`, for people `encoder_load.txt`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.read import encoder_facts
from monai_ssl_transfer.weights.report import LoadReport

RECORD = "encoder_load.json"
TABLE = "encoder_load.txt"
FROM_SCRATCH = "from scratch: the encoder started with random weights\n"


def write_load_record(output_dir: str | Path, file: str | Path | None, report: LoadReport | None) -> None:
    """Write down what was loaded, in the first process only.

    Args:
        output_dir: folder of the run.
        file: the encoder's file, None from scratch; the record holds its name without folders.
        report: of the loading.

    Raises:
        WeightsError: when the disk is full or cannot be written.
    """
    if idist.get_rank() != 0:
        return
    record: dict[str, Any] = {"file": None}
    table = FROM_SCRATCH
    if file is not None and report is not None:
        facts = encoder_facts(file)
        name = Path(file).name
        content = asdict(report) | {"source": name}
        record = {
            "file": name,
            "sha256": facts.sha256,
            "source": facts.source,
            "card": asdict(facts.card),
            "report": content,
        }
        table = f"{report.table()}\n"
    folder = Path(output_dir)
    text = json.dumps(record, indent=2) + "\n"
    try:
        write_durably(folder / RECORD, lambda stream: stream.write(text.encode()))
        write_durably(folder / TABLE, lambda stream: stream.write(table.encode()))
    except OSError as error:
        raise WeightsError(
            f"{RECORD} could not be written into {folder} ({error.strerror}): free space there."
        ) from error
