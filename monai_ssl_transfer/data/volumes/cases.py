"""Which labelled volumes are trained on, which validate or are held out, and how training reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.data.ct.labelled_cases import (
    DrawnDivision,
    Names,
    divide_listed,
    listed_to_evaluate,
    named_parts,
)
from monai_ssl_transfer.data.ct.nifti import open_nifti, read_nifti_ct
from monai_ssl_transfer.data.ct.volume import CtVolume, geometry_notes, slice_gaps, stack_affine
from monai_ssl_transfer.data.volumes.intensities import is_hounsfield, scaled
from monai_ssl_transfer.data.volumes.layouts import Case, labelled_cases

Divided = dict[str, list[Case]]


@dataclass(frozen=True)
class VolumeSource:
    """Where the cases of a task are.

    Args:
        dataset_dir: folder of the data set.
        layout: "msd", "amos", "btcv" or "brats".
        channels: layout of the network's input.
        modalities: of BraTS, in the order of the network's channels.
        volumes: numbers of the modalities within four-dimensional files; None where each file has one.
        modality: of AMOS, "CT" or "MR".
    """

    dataset_dir: str | Path
    layout: str
    channels: str = "windows"
    modalities: Sequence[str] | None = None
    volumes: Sequence[int] | None = None
    modality: str | None = None

    def cases(self) -> list[Case]:
        """The labelled cases, each with how its image is read."""
        more: dict[str, Any] = {} if is_hounsfield(self.channels) else {"channels": self.channels}
        if self.volumes is not None:
            more["volumes"] = list(self.volumes)
        return [case | more for case in labelled_cases(self.dataset_dir, self.layout, self.modalities, self.modality)]


def divide_volumes(
    source: VolumeSource,
    output_dir: str | Path,
    train_cases: Names = None,
    validation_cases: Names = None,
    draw: DrawnDivision | None = None,
    test_cases: Names = None,
) -> Divided:
    """Divide the cases of a data set by patient: by name, as the data set does it, or by a seeded draw.

    Where nobody names training or validation cases and the data set has a validation part (AMOS), that is kept for
    validation; the test part is named or drawn from the rest.

    Args:
        source: the data set.
        output_dir: folder of the run, which gets ``cases.json`` and, of a draw, ``split.json``.
        train_cases: names of the training cases; None takes all that are not named or drawn for another part.
        validation_cases: names of the validation cases; None draws them, or, where training cases are named, takes all
            that are not named.
        draw: shares and seeds.
        test_cases: names of the cases that are held out; None draws them, or, where training cases are named, holds
            none out.

    Returns:
        {"train": [...], "validation": [...], "test": [...]}.

    Raises:
        DataError: as `labelled_cases` and `divide_listed`.
    """
    cases = source.cases()
    named = named_parts(train_cases, validation_cases, test_cases)
    if not named["train"] and not named["validation"]:
        official = [case["case"] for case in cases if case.get("part") == "validation"]
        named["validation"] = [name for name in official if name not in named["test"]]
    return divide_listed(cases, output_dir, named, draw or DrawnDivision())


def volumes_to_evaluate(
    source: VolumeSource,
    run_dir: str | Path,
    validation_cases: Names = None,
    test_cases: Names = None,
    part: str | None = None,
) -> Divided:
    """The cases of an evaluation: those named, else those that the training run held out.

    Args:
        source: the data set.
        run_dir: folder of the training run, with its `cases.json`.
        validation_cases: names; None takes the record of the run.
        test_cases: likewise.
        part: as for `monai_ssl_transfer.data.ct.labelled_cases.cases_to_evaluate`.

    Raises:
        DataError: as `labelled_cases`; a name that the data set lacks, neither names nor a record, or an empty part.
    """
    named = named_parts(None, validation_cases, test_cases)
    return listed_to_evaluate(source.cases(), source.dataset_dir, run_dir, named, part)


def read_case_volume(case: Mapping[str, Any]) -> CtVolume:
    """The volume of one modality of a case in stored units (`intensities`): HU, or scaled by its own voxels.

    Args:
        case: "image", and where they apply "volume" (number within a four-dimensional file) and "channels".

    Raises:
        DataError: the file is damaged, not axial within 30 degrees, or its voxels do not fit the channels.
    """
    if "channels" not in case:
        return read_nifti_ct(case["image"], case.get("volume"))
    stack = open_nifti(case["image"], case.get("volume"))
    values = stack.stored * np.float32(stack.slope) + np.float32(stack.intercept)
    gap, uneven = slice_gaps(stack.positions)
    affine = stack_affine(stack.planes)
    notes = geometry_notes(affine, stack.positions, stack.planes[0].shape)
    units = scaled(values, case["channels"], str(case["image"]))
    return CtVolume(units, stack.positions, stack.planes[0].spacing, affine, gap, uneven, notes)
