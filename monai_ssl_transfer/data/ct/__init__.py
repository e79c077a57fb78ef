"""CT in: DICOM and NIfTI series, public layouts, labelled volumes and their transforms."""
