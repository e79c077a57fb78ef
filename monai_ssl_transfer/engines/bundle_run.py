"""Running a bundle's configuration in this process: what ``python -m monai.bundle run`` does, without a new process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def run_bundle(
    files: Sequence[str | Path],
    overrides: Mapping[str, Any],
    meta_file: str | Path | None = None,
    judge: Callable[[ConfigParser], Any] | None = None,
) -> Any:
    """Initialise, run and finalise a bundle; importing MONAI anew for each run would cost seconds.

    Args:
        files: configuration files, the bundle's own first.
        overrides: ids to override, as on the command line.
        meta_file: metadata.json of the bundle; None takes the one beside the first file, if there is one.
        judge: asked with the parser after the run, before anything is finalised.

    Returns:
        What ``judge`` returned; None without one.
    """
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=None if meta_file is None else str(meta_file),
        workflow_type="train",
        logging_file=False,
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    judged = None if judge is None else judge(workflow.parser)
    workflow.finalize()
    return judged
