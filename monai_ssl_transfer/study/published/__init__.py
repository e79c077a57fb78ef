"""Runs that others published, brought into a study's folder."""
