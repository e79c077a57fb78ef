"""Volumes of any scanner with labels of any number of classes: layouts, label values, intensities."""
