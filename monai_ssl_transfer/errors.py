"""Errors that speak to the user: one sentence that names the file and says what to do."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import TracebackType


class UserError(Exception):
    """A problem the user can mend; its message is one sentence with the file (if any) and the remedy."""


class DataError(UserError):
    """An image, a label, a store or a list of them cannot be used as it is."""


class WeightsError(UserError):
    """A checkpoint does not fit the network that it was meant for."""


class NetworkError(UserError, ValueError):
    """No network can be built as it was asked for."""


class TrainingError(UserError):
    """Training was stopped because going on would waste the user's time."""


class ExportError(UserError):
    """A run cannot be handed out as it is."""


class ExecutionError(UserError):
    """Jobs cannot be run where they were asked to run."""


class StudyError(UserError):
    """A study cannot be read, planned or run as it was described."""


class LabelError(UserError):
    """An annotation server cannot be started, or cannot do what it was asked.

    Args:
        message: one sentence.
        status: of the answer over HTTP.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def user_error_of(error: BaseException | None) -> UserError | None:
    """Return the `UserError` that an exception was raised from, at any depth of its chain, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def explain_user_errors() -> None:
    """Let an uncaught exception end with the sentence of the `UserError` behind it.

    MONAI wraps what goes wrong in a configuration into errors of many lines about the configuration; the
    traceback stays, and the sentence that helps becomes the last line. Bundles call this in ``initialize``.

    Raises:
        TrainingError: when a setting is switched off by a word that would leave it on.
    """
    if not getattr(sys.excepthook, "explains_user_errors", False):
        _install_hook()
    if typed := false_as_text(sys.argv):
        raise TrainingError(f"{typed} is a text to MONAI's command line and would count as true: write False.")


def _install_hook() -> None:
    """Add the sentence after what the present hook writes."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        previous(kind, error, trace)
        cause = user_error_of(error)
        if cause is not None and cause is not error:
            sys.stderr.write(f"\n{type(cause).__name__}: {cause}\n")

    hook.explains_user_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def false_as_text(words: list[str]) -> str | None:
    """The first setting of ``python -m monai.bundle`` that is given "false" in letters that only a text has.

    Python Fire, which reads that command line, knows ``False``; ``false`` stays a text, and a text is true.

    Args:
        words: of a command line, the program first.
    """
    if not words or not words[0].replace("\\", "/").endswith("monai/bundle/__main__.py"):
        return None
    pairs = [*pairwise(words), *(word.split("=", 1) for word in words[1:] if "=" in word)]
    return next(
        (
            f"{name} {value}"
            for name, value in pairs
            if name.startswith("--") and value != "False" and value.lower() == "false"
        ),
        None,
    )
