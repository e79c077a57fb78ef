"""The checks of an audit: what each code means, how grave it is, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One kind of finding.

    Args:
        subject: heading under which a report shows it.
        meaning: what it is.
        severity: "error", "warning" or "note", unless the finding says otherwise.
        remedy: what to do.
    """

    subject: str
    meaning: str
    severity: str
    remedy: str


LEAKAGE, FILES, MASKS, GRIDS, VALUES, GEOMETRY = (
    "Leakage",
    "Files",
    "Masks",
    "Image and label",
    "Intensities",
    "Geometry",
)
_APART = "keep all of it in one part, or leave it out of the training"
_BOTH = (
    "leave it out of the set that is trained on (photographs: `ingest frames --leave-out`; scans: ingest without it)"
)

CHECKS: dict[str, Check] = {
    "same-case-in-two-parts": Check(LEAKAGE, "the split names a case in two parts", "error", _APART),
    "same-group-in-two-parts": Check(
        LEAKAGE, "one patient, sequence or video lies in two parts of the split", "error", f"split by group: {_APART}"
    ),
    "same-picture-in-two-parts": Check(LEAKAGE, "the same pixels lie in two parts of the split", "error", _APART),
    "same-scan-in-two-parts": Check(
        LEAKAGE, "a scan, or a part of it, lies in two parts of the split under two names", "error", _APART
    ),
    "near-duplicate-in-two-parts": Check(
        LEAKAGE, "photographs of one scene, by perceptual hash, lie in two parts of the split", "error", _APART
    ),
    "similar-in-two-parts": Check(
        LEAKAGE,
        "images in two parts of the split whose embeddings are closer than those of strangers",
        "warning",
        f"look at the pairs; where they show one patient, {_APART}",
    ),
    "same-picture-in-both-sets": Check(LEAKAGE, "the same pixels lie in both data sets", "error", _BOTH),
    "same-scan-in-both-sets": Check(LEAKAGE, "a scan, or a part of it, lies in both data sets", "error", _BOTH),
    "near-duplicate-in-both-sets": Check(LEAKAGE, "photographs of one scene lie in both data sets", "error", _BOTH),
    "similar-in-both-sets": Check(
        LEAKAGE,
        "images of the two data sets whose embeddings are closer than those of strangers",
        "warning",
        f"look at the pairs; where they show one patient, {_BOTH}",
    ),
    "known-overlap": Check(
        LEAKAGE,
        "two public data sets that are known to share patients",
        "error",
        "take one of the two, or leave the shared cases out of one",
    ),
    "same-picture-in-two-classes": Check(
        LEAKAGE,
        "the same pixels lie in two folders; in a set with a folder per class one of the labels is wrong",
        "warning",
        "keep it in the folder that is right",
    ),
    "same-picture": Check(
        LEAKAGE, "the same pixels under two names", "warning", "remove one, or split by group with both in one group"
    ),
    "same-scan": Check(
        LEAKAGE,
        "a scan, or a part of it, under two names",
        "warning",
        "remove one, or keep both in one part of every split",
    ),
    "near-duplicate": Check(
        LEAKAGE,
        "photographs of one scene, by perceptual hash, in a set without a split",
        "note",
        "split by group: the bundles' own splits keep such photographs together",
    ),
    "split-unknown-name": Check(
        LEAKAGE, "the split names cases that the data do not hold", "error", "give the data that the split was made for"
    ),
    "split-incomplete": Check(
        LEAKAGE, "cases that the split does not name", "note", "check that they are meant to be left out"
    ),
    "damaged": Check(FILES, "a file that cannot be read or is no scan", "error", "copy or export the file again"),
    "not-used": Check(
        FILES,
        "files that an ingest would leave out, with its reason",
        "note",
        "check that nothing that is needed is among them",
    ),
    "missing-partner": Check(
        FILES, "an image without its label, or a label without its image", "error", "add the partner or remove the file"
    ),
    "doubled-name": Check(FILES, "two files claim one case", "error", "remove or rename one of them"),
    "system-file": Check(
        FILES,
        "files that macOS or Windows left behind (`._name` looks like a scan by its name)",
        "note",
        "delete them: programs that list by suffix read them as scans",
    ),
    "empty-mask": Check(
        MASKS,
        "a mask that marks nothing",
        "warning",
        "check that there is nothing to mark; Dice of an empty mask must be defined",
    ),
    "full-mask": Check(MASKS, "a mask that marks nearly everything", "warning", "check that it is not inverted"),
    "mask-values": Check(
        MASKS,
        "a mask with values that are no labels: fractions, negative numbers, beyond 255, NaN",
        "error",
        "save it as whole numbers, without interpolation",
    ),
    "unknown-label": Check(
        MASKS, "labels that the task or dataset.json does not know", "error", "map the labels or choose the right file"
    ),
    "grey-mask": Check(
        MASKS,
        "a mask of two values with a broad grey range between: blurred or resized with interpolation",
        "warning",
        "make it anew from the source, or threshold it and look at the result",
    ),
    "jpeg-mask": Check(
        MASKS,
        "masks saved as JPEG: values scatter around 0 and 255",
        "note",
        "threshold at 127, as this program does; comparing with 255 or with > 0 gives wrong masks",
    ),
    "dark-mask": Check(
        MASKS,
        "a mask whose values all lie in the lower half, such as 0 and 1",
        "error",
        "store 0 for background and 255 for findings",
    ),
    "shape-mismatch": Check(
        GRIDS, "image and label differ in size", "error", "pair the label with the image it was drawn on"
    ),
    "spacing-mismatch": Check(
        GRIDS, "image and label differ in voxel spacing by more than 1 %", "error", "mend the label's header"
    ),
    "position-mismatch": Check(
        GRIDS,
        "a corner of the label lies more than half a voxel from the image's",
        "error",
        "use the image it was drawn on or mend its affine",
    ),
    "orientation-mismatch": Check(
        GRIDS,
        "image and label are stored in different orientations, though they lie in one place",
        "warning",
        "this program reads them rightly; for programs that ignore the affine save both in one orientation",
    ),
    "eight-bit": Check(
        VALUES,
        "no value below 0 and none above 255: HU were stretched to 8 bits",
        "error",
        "go back to the DICOM files: HU cannot be recovered",
    ),
    "no-intercept": Check(
        VALUES,
        "no value below 0: unsigned values, the intercept was not applied",
        "error",
        "subtract the offset, often 1024, or export again with rescale",
    ),
    "clipped": Check(
        VALUES,
        "a window was applied: many voxels lie at the upper limit",
        "warning",
        "use the scan before windowing",
    ),
    "no-air": Check(
        VALUES,
        "no value of air or lung (below -300 HU)",
        "note",
        "expected of crops inside the body; else check the rescaling",
    ),
    "padding": Check(
        VALUES,
        "a value below -1024 HU, by which scanners mark what they did not measure",
        "note",
        "this program takes them for air; programs that normalise by mean or minimum must clamp first",
    ),
    "overshoot": Check(
        VALUES, "values above 3071 HU (metal, or an extended scale)", "note", "window or clamp before normalising"
    ),
    "blank-picture": Check(VALUES, "a photograph of one colour", "warning", "remove it"),
    "identity-affine": Check(
        GEOMETRY,
        "an affine that says nothing: 1 mm voxels at the origin",
        "warning",
        "take spacing and orientation from the original files",
    ),
    "lits-28-47": Check(
        GEOMETRY,
        "LiTS volumes 28 to 47, the twenty patients of 3D-IRCADb-01, with identity affine and 1 mm",
        "warning",
        "take spacing and orientation from 3D-IRCADb's DICOM files, or leave the twenty out; never pool with 3D-IRCADb",
    ),
    "spacing": Check(
        GEOMETRY,
        "pixels outside 0.2 to 5 mm or slices further apart than 10 mm",
        "warning",
        "check the header against the scanner's report",
    ),
    "uneven-spacing": Check(
        GEOMETRY,
        "distances between slices differ",
        "warning",
        "do not stack them as if evenly spaced: resample, or work slice by slice",
    ),
    "missing-slices": Check(
        GEOMETRY,
        "a gap of two or more slice distances in an otherwise even series",
        "warning",
        "export the series again",
    ),
    "doubled-slices": Check(
        GEOMETRY, "neighbouring slices with the same pixels", "warning", "export again, or remove the copies"
    ),
    "blank-slices": Check(
        GEOMETRY, "slices of one value between others that show something", "warning", "export or convert it again"
    ),
    "gantry-tilt": Check(
        GEOMETRY,
        "slices that are shifted against each other (gantry tilt)",
        "note",
        "resample before any 3-D network; 2-D slices are sound",
    ),
    "orientation-outlier": Check(
        GEOMETRY,
        "a scan stored in another orientation than nearly all others",
        "warning",
        "look at it: its header may be wrong",
    ),
    "mixed-orientations": Check(
        GEOMETRY,
        "a set whose scans are stored in several orientations",
        "note",
        "this program turns all into one; programs that ignore the affine must do so as well",
    ),
    "few-slices": Check(
        GEOMETRY, "a volume of fewer than 5 slices", "note", "2-D networks only; 3-D metrics of it mean little"
    ),
}
"""Every check by its code; the order is that of the report."""
_DAMAGE = frozenset(
    {
        "unreadable",
        "damaged header",
        "damaged NIfTI",
        "empty file",
        "no pixel data",
        "truncated pixel data",
        "damaged pixel data",
        "damaged geometry",
        "pixel spacing",
        "no geometry",
        "voxel spacing",
        "not a number",
        "empty image",
        "not NIfTI",
        "position clash",
    }
)
"""Refusals of an ingest that are damage; other refusals are of sound files that an ingest cannot use."""


def refusal_check(code: str) -> str:
    """The check under which a file stands that an ingest refuses with a code: "damaged" or "not-used"."""
    return "damaged" if code in _DAMAGE else "not-used"
