"""Sentences for the faults of a training run that torch tells in its own words: full memory, a lost process."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import ignite.distributed as idist
import torch

from monai_ssl_transfer.engines.checkpoints.files import checkpoints
from monai_ssl_transfer.errors import UserError, user_error_of

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
_LOST = re.compile(r"gloo|nccl|c10d|connection (was )?(closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)


def explained(error: BaseException, step: int, last_good: str) -> str | None:
    """A sentence for the user about an error of torch.

    Args:
        error: what ended the run.
        step: the step that was under way.
        last_good: the newest checkpoint.

    Returns:
        The sentence, or None where the error is another one or says enough by itself.
    """
    if isinstance(user_error_of(error), UserError):
        return None
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _matches(_NO_MEMORY, error):
        return (
            f"Memory is full at step {step}: give the same command a higher --accumulation or "
            "--activation_checkpointing true, or lower --batch_size or --image_size or choose --precision bf16 "
            f"{other_settings(last_good)}; the last good state is {last_good}."
        )
    if idist.get_world_size() > 1 and _matches(_LOST, error):
        return lost_process(step, last_good)
    return None


def lost_process(step: int, last_good: str) -> str:
    """The sentence for a process that was killed, broke off or hangs.

    Args:
        step: the step that was under way.
        last_good: the newest checkpoint.
    """
    return (
        f"Another process of this run was lost or did not answer in time at step {step}: look at what it said; the "
        f"last good state is {last_good}, and the same command goes on from there: {command()}"
    )


def other_settings(last_good: str) -> str:
    """How to go on with settings that a resume refuses.

    Args:
        last_good: the newest checkpoint.
    """
    if not last_good.endswith(".ckpt"):
        return "and start again"
    return f"with --continued_run {Path(last_good).parent.parent} and a new --output_dir"


def last_good(newest: str | None) -> str:
    """The newest checkpoint that is there: another process may have been lost while it wrote one.

    Args:
        newest: the checkpoint that was written or read last.
    """
    found = checkpoints(Path(newest).parent) if newest is not None else []
    return str(found[0]) if found else "the start: no checkpoint was written yet"


def command() -> str:
    """The command that started this process, with torchrun where that did it."""
    words = [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]
    if "TORCHELASTIC_RUN_ID" in os.environ and "-m" in words:
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
        launcher = ["torchrun", *([f"--nnodes={nodes}"] if nodes > 1 else [])]
        words = [*launcher, f"--nproc_per_node={os.environ['LOCAL_WORLD_SIZE']}", *words[words.index("-m") :]]
    return shlex.join(words)


def _matches(pattern: re.Pattern[str], error: BaseException) -> bool:
    """Only errors of torch and of the operating system: a message of anything else may say such words by chance."""
    of_a_file = isinstance(error, OSError) and error.filename is not None  # NFS times out too
    return isinstance(error, (RuntimeError, OSError)) and not of_a_file and pattern.search(str(error)) is not None
