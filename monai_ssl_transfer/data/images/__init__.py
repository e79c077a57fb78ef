"""Labelled two-dimensional images of any kind in public layouts: class folders, chest radiographs, CT slices, masks."""
