"""What of an evaluation's summary is a figure."""

from __future__ import annotations

from monai_ssl_transfer.export.figures import Figure, counts, figures

SUMMARY = {
    "cases": 1,
    "tolerance_mm": 2.0,
    "classes": {"liver": {"dice": {"mean": 0.5, "sd": 0.0, "n": 1}, "iou": {"mean": 0.4, "sd": 0.1, "n": 3}}},
    "support": {"train": {"cecum": 3.5}},
    "auroc": 0.75,
    "finding": {"sensitivity_at_specificity": [{"specificity_asked": 0.9, "sensitivity": 0.5}]},
    "absent_classes": ["cecum"],
}


def test_figures_are_named_and_counts_are_none():
    assert list(figures(SUMMARY)) == [
        Figure("liver_dice", 0.5, None, 1),  # one case has no spread
        Figure("liver_iou", 0.4, 0.1, 3),
        Figure("auroc", 0.75),
        Figure("finding_sensitivity_at_specificity_0.9_sensitivity", 0.5),
    ]
    assert counts(SUMMARY) == {"cases": 1, "tolerance_mm": 2.0}
