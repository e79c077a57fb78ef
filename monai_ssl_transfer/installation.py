"""Where the bundles and their overlays are: beside the installed package's modules, or in the repository."""

from __future__ import annotations

from pathlib import Path

from monai_ssl_transfer.errors import DataError


def project_folder() -> Path:
    """Folder that holds ``bundles/`` and ``configs/``: the installed package's own, or the repository.

    Raises:
        DataError: neither has them.
    """
    package = Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / "bundles").is_dir() and (folder / "configs").is_dir():
            return folder
    raise DataError(
        f"no bundles/ and configs/ beside {package}: install the package again, or run from its repository."
    )


def find_overlay(given: str | Path) -> Path | None:
    """A configuration file as people name it: from where they are, or from the project's folder.

    Args:
        given: such as ``configs/networks/unet_resnet18.json``.

    Returns:
        Its path; None where neither has it.
    """
    return next((place for place in (Path(given), project_folder() / given) if place.is_file()), None)
