"""The published table of corruptions: what a severity of 1 to 5 means, with units and sources. Nothing else sets one.

Lengths in "px at 512" are pixels of a picture whose longer side has 512; they grow with the picture. Where a corruption
can go two ways (darker or brighter, left or right), the image's seed chooses the way and the table gives the size.

Sources: [IN-C] Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019 (values for 224 px); [grid] a third party's grid over GastroNet weights, of which the ends
are known (gamma 0.45 to 2.10, white balance 22 %, JPEG 25 to 60, blur 3.5, down-sampling to 25 %, noise 0.09, vignette
0.7); [own] chosen for this project: 1 is hardly noticed, 3 would be noted in a report, 5 is at the limit of what is
still read.
"""

from __future__ import annotations

from dataclasses import dataclass

from monai_ssl_transfer.errors import DataError

PHOTOGRAPH = "photograph"
CT = "ct"
MR = "mr"
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One row of the table.

    Args:
        name: unique within its domain.
        domain: "photograph", "ct" or "mr".
        parameters: names of the numbers of a severity, with their units.
        values: one tuple of numbers per severity from 1 to 5.
        source: where the numbers come from.
        volumes_only: needs neighbouring slices.
    """

    name: str
    domain: str
    parameters: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    source: str
    volumes_only: bool = False

    def at(self, severity: int) -> tuple[float, ...]:
        """The numbers of a severity.

        Raises:
            DataError: no severity from 1 to 5.
        """
        if severity not in SEVERITIES:
            raise DataError(f"{self.name} has no severity {severity!r}: choose 0 (nothing is done) or 1 to 5.")
        return self.values[severity - 1]


def _row(
    name: str, domain: str, parameter: str, values: tuple[float, ...], source: str, volumes_only: bool = False
) -> Corruption:
    return Corruption(name, domain, (parameter,), tuple((value,) for value in values), source, volumes_only)


_PHOTOGRAPHS = (
    _row("gaussian_noise", PHOTOGRAPH, "SD, share of the range", (0.02, 0.04, 0.06, 0.09, 0.13), "[grid] to 0.09"),
    _row(
        "poisson_noise", PHOTOGRAPH, "photons at full brightness", (500.0, 200.0, 90.0, 45.0, 25.0), "[own]; 25 of IN-C"
    ),
    _row("speckle_noise", PHOTOGRAPH, "SD, share of the pixel's value", (0.06, 0.1, 0.15, 0.2, 0.35), "[IN-C] from 3"),
    _row("rician_noise", PHOTOGRAPH, "SD, share of the range; MR", (0.02, 0.04, 0.06, 0.09, 0.13), "[own]"),
    _row("gaussian_blur", PHOTOGRAPH, "SD, px at 512", (1.0, 2.0, 3.0, 4.0, 6.0), "[IN-C] (there at 224)"),
    _row("motion_blur", PHOTOGRAPH, "length, px at 512", (8.0, 14.0, 22.0, 32.0, 44.0), "[own]"),
    _row("defocus_blur", PHOTOGRAPH, "radius, px at 512", (3.0, 4.0, 6.0, 8.0, 10.0), "[IN-C] (there at 224)"),
    _row("contrast", PHOTOGRAPH, "factor around the mean", (0.8, 0.65, 0.5, 0.35, 0.2), "[own]; 0.2 is 3 of IN-C"),
    _row("brightness", PHOTOGRAPH, "exposure, stops up or down", (0.3, 0.6, 0.9, 1.2, 1.6), "[own]"),
    _row("gamma", PHOTOGRAPH, "exponent or its inverse", (1.15, 1.3, 1.5, 1.8, 2.1), "[grid] to 0.48 and 2.1"),
    _row("white_balance", PHOTOGRAPH, "red and blue gain, opposite", (0.05, 0.09, 0.13, 0.17, 0.22), "[grid] to 22 %"),
    _row("saturation", PHOTOGRAPH, "share lost or gained", (0.2, 0.35, 0.5, 0.65, 0.8), "[own]"),
    _row("jpeg", PHOTOGRAPH, "quality", (60.0, 45.0, 35.0, 25.0, 15.0), "[grid] 60 to 25; 15 is 3 of IN-C"),
    _row("down_sampling", PHOTOGRAPH, "share of the sides", (0.75, 0.6, 0.5, 0.35, 0.25), "[grid] to 25 %"),
    _row("vignette", PHOTOGRAPH, "light lost in the corner", (0.25, 0.4, 0.55, 0.7, 0.85), "[grid] 0.7"),
    _row("specular_highlights", PHOTOGRAPH, "share of the view", (0.003, 0.006, 0.012, 0.022, 0.04), "[own]"),
    _row("smoke", PHOTOGRAPH, "mean opacity", (0.12, 0.22, 0.34, 0.48, 0.62), "[own]"),
    _row("bubbles", PHOTOGRAPH, "bubbles", (8.0, 18.0, 35.0, 65.0, 110.0), "[own]"),
)

_CT = (
    _row("quantum_noise", CT, "SD in 30 cm of water, HU", (10.0, 18.0, 28.0, 42.0, 65.0), "[own]"),
    _row("gaussian_noise", CT, "SD, HU", (8.0, 15.0, 25.0, 40.0, 60.0), "[own]"),
    _row("blur", CT, "SD, px at 512", (0.7, 1.1, 1.6, 2.3, 3.2), "[own]"),
    _row("down_sampling", CT, "share of rows and columns", (0.75, 0.6, 0.5, 0.35, 0.25), "[own]"),
    _row("hu_shift", CT, "shift up or down, HU", (10.0, 20.0, 35.0, 60.0, 100.0), "[own]"),
    Corruption(
        "window_error",
        CT,
        ("width kept, HU", "level off 40, up or down, HU"),
        ((1500.0, 0.0), (900.0, 20.0), (600.0, 40.0), (400.0, 60.0), (250.0, 80.0)),
        "[own]",
    ),
    _row("streak", CT, "SD in the body, HU", (8.0, 14.0, 22.0, 34.0, 50.0), "[own]"),
    _row("ring", CT, "height of the strongest ring, HU", (15.0, 30.0, 50.0, 80.0, 120.0), "[own]"),
    Corruption(
        "metal",
        CT,
        ("radius, mm", "99th percentile in the body, HU"),
        ((2.0, 40.0), (2.5, 80.0), (3.0, 140.0), (4.0, 240.0), (5.0, 400.0)),
        "[own]",
    ),
    _row("slice_thickness", CT, "profile added, mm", (3.0, 5.0, 8.0, 12.0, 20.0), "[own]", volumes_only=True),
)

_MR = (
    _row("rician_noise", MR, "SD, share of the range", (0.02, 0.04, 0.06, 0.09, 0.13), "[own]"),
    _row("bias_field", MR, "logarithm of the largest gain", (0.1, 0.2, 0.35, 0.5, 0.7), "[own]"),
    _row("gamma", MR, "exponent or its inverse", (1.15, 1.3, 1.5, 1.8, 2.1), "[own]"),
    _row("blur", MR, "SD, px at 512", (0.7, 1.1, 1.6, 2.3, 3.2), "[own]"),
    _row("down_sampling", MR, "share of rows and columns", (0.75, 0.6, 0.5, 0.35, 0.25), "[own]"),
    _row("slice_thickness", MR, "profile added, mm", (3.0, 5.0, 8.0, 12.0, 20.0), "[own]", volumes_only=True),
)

CORRUPTIONS = {
    domain: {one.name: one for one in rows} for domain, rows in ((PHOTOGRAPH, _PHOTOGRAPHS), (CT, _CT), (MR, _MR))
}
"""Rows by domain and name, in the order in which they are shown."""


def corruption(domain: str, name: str) -> Corruption:
    """One row of the table.

    Raises:
        DataError: unknown domain or corruption.
    """
    if domain not in CORRUPTIONS:
        raise _no_domain(domain)
    if name not in CORRUPTIONS[domain]:
        raise DataError(f"{domain} has no corruption '{name}': choose one of {', '.join(CORRUPTIONS[domain])}.")
    return CORRUPTIONS[domain][name]


def markdown_table(domain: str) -> str:
    """The rows of a domain as a Markdown table.

    Raises:
        DataError: unknown domain.
    """
    if domain not in CORRUPTIONS:
        raise _no_domain(domain)
    lines = ["| corruption | what the numbers are | 1 | 2 | 3 | 4 | 5 | source |", "|---|---|---|---|---|---|---|---|"]
    for row in CORRUPTIONS[domain].values():
        values = [" / ".join(f"{number:g}" for number in one) for one in row.values]
        lines.append(f"| `{row.name}` | {' / '.join(row.parameters)} | {' | '.join(values)} | {row.source} |")
    return "\n".join(lines)


def _no_domain(domain: str) -> DataError:
    return DataError(f"there are no corruptions of '{domain}': choose one of {', '.join(CORRUPTIONS)}.")
