"""Whether PyTorch could use a GPU here, asked without importing it: the default of a study's `resources`."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
"""Device files of NVIDIA's driver, of the one of WSL and of AMD's: without any there is no GPU to ask PyTorch about."""
_QUESTION = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_SECONDS = 120


@functools.cache
def gpus_here(devices: Path = Path("/dev")) -> int:
    """Return the number of GPUs that jobs of this process could use; 0 where PyTorch does not answer.

    Args:
        devices: folder of device files.
    """
    if not any(any(devices.glob(pattern)) for pattern in _DEVICES):
        return 0
    try:
        asked = [sys.executable, "-c", _QUESTION]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
        return int(answer.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
