"""Endoscopy in: RGB frames and videos, public layouts, labelled frames and their transforms."""
