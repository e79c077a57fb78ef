"""Errors that speak to the user: one sentence that names the file and says what to do."""

from __future__ import annotations


class UserError(Exception):
    """A problem the user can mend; its message is one sentence with the file (if any) and the remedy."""


class DataError(UserError):
    """An image, a label, a store or a list of them cannot be used as it is."""


class WeightsError(UserError):
    """A checkpoint does not fit the network that it was meant for."""


class TrainingError(UserError):
    """Training was stopped because going on would waste the user's time."""
