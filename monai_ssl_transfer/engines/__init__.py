"""Engines and handlers on MONAI's Trainer; import them by their full module path."""
