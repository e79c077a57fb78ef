"""The versions of all that decides what a run computes."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from monai_ssl_transfer import __version__

_PACKAGES = ("monai", "torch", "timm", "lightly", "pytorch-ignite", "numpy")


def versions() -> dict[str, str]:
    """The versions of this package, of the libraries under it, of Python and of CUDA (where torch was built for it)."""
    found = {"monai_ssl_transfer": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a build that is used from its source folder
            continue
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found
