"""The state of the repository that a run was started in."""

from __future__ import annotations

import subprocess
from typing import Any

_SECONDS = 20


def git_state() -> dict[str, Any] | None:
    """The commit of the working folder's repository and whether tracked files differ from it.

    Returns:
        "commit" and "dirty", or ``None`` outside of a repository, before its first commit, and without git.
    """
    try:
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(*arguments: str) -> str:
    # without its optional locks, git changes nothing in a repository that somebody may be working in
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    return done.stdout.strip()
