"""What an audit can find: a finding, and the order and weight of findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai_ssl_transfer.data.audit.catalogue import CHECKS
from monai_ssl_transfer.data.natural_order import natural_key

SEVERITIES = ("error", "warning", "note")
"""From the worst to the mildest: an error makes results wrong, a warning may, a note is worth knowing."""


@dataclass(frozen=True)
class Picture:
    """What a page shows beside a finding; the pixels are read again when the page is written.

    Args:
        name: caption.
        image: photograph or volume, or the folder of a slice store.
        label: its mask, drawn as an outline; "" for none.
        files: of a DICOM series, in order.
        series: number in a slice store; -1 for files.
        row: number in a slice store of the photograph that is shown; -1 for the series' middle.
    """

    name: str
    image: str
    label: str = ""
    files: tuple[str, ...] = ()
    series: int = -1
    row: int = -1


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Args:
        code: key of `CHECKS`.
        severity: one of `SEVERITIES`.
        sentence: what was found, naming the files.
        files: paths below the audited folder, as the user has them.
        measure: number that findings of one code are ordered by, the worst first (bits, share, millimetres).
        pictures: what to show.
    """

    code: str
    severity: str
    sentence: str
    files: tuple[str, ...]
    measure: float = 0.0
    pictures: tuple[Picture, ...] = ()

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CHECKS[self.code].remedy


def finding(
    code: str,
    sentence: str,
    files: Sequence[str],
    *,
    severity: str = "",
    measure: float = 0.0,
    pictures: Sequence[Picture] = (),
) -> Finding:
    """A finding with the severity that its check has, unless another is given."""
    return Finding(code, severity or CHECKS[code].severity, sentence, tuple(files), measure, tuple(pictures))


def in_order_of_weight(findings: Sequence[Finding]) -> list[Finding]:
    """Worst first, then by the order of the checks, the measure and the files: the same in every run."""
    codes = list(CHECKS)
    return sorted(
        findings,
        key=lambda one: (
            SEVERITIES.index(one.severity),
            codes.index(one.code),
            one.measure,
            [natural_key(file) for file in one.files],
            one.sentence,
        ),
    )


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence: the first few, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
