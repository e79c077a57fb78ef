"""Files, folders and shares that a study's YAML names; each must be there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai_ssl_transfer.installation import project_folder
from monai_ssl_transfer.study.planning.matrix import DATA_STEP, DataStep
from monai_ssl_transfer.study.planning.strict_yaml import StrictSection

NUMBER = (float, type(None))


def find_file(text: str, near: Path) -> Path | None:
    """Return a configuration file named from the project's folder, the study's file or the working folder."""
    places = (project_folder() / text, near.parent / text, Path(text))
    return next((place.absolute() for place in places if place.is_file()), None)


def named_file(part: StrictSection, text: str, key: str, what: str) -> str:
    """Return the path of a configuration file; one that is not there is refused."""
    found = find_file(text, part.file)
    if found is None:
        raise part.error(f"names the {what} {text}, which is not there", key)
    return str(found)


def named_weights(part: StrictSection, text: str, key: str) -> str:
    """Return a checkpoint of the user: a file, or the folder that holds one."""
    places = (Path(text).expanduser(), part.file.parent / text)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise part.error(f"names the weights {text}, which are not there", key)
    return str(found.absolute())


def named_overlays(part: StrictSection) -> tuple[str, ...]:
    """Return the paths of a list of overlays."""
    return tuple(named_file(part, one, "overlays", "overlay") for one in part.texts("overlays", ()))


def named_bundle(part: StrictSection) -> str:
    """Return the name of a bundle that is there."""
    name: str = part.take("bundle", str)
    if not (project_folder() / "bundles" / name / "configs" / "train.json").is_file():
        known = ", ".join(sorted(one.name for one in (project_folder() / "bundles").iterdir() if one.is_dir()))
        raise part.error(f"names the bundle '{name}': choose one of {known}", "bundle")
    return name


def named_folder(part: StrictSection, text: str, key: str, data: Mapping[str, DataStep]) -> str:
    """Return a folder of the user, or "data:NAME" with or without a folder below it."""
    if text.startswith(DATA_STEP):
        name = text[len(DATA_STEP) :].split("/", 1)[0]
        if name not in data:
            raise part.error(f"names the data step '{name}', which 'data' does not declare", key)
        return text
    if not Path(text).expanduser().exists():
        raise part.error(f"names the data {text}, which is not there", key)
    return str(Path(text).expanduser().absolute())


def named_fractions(part: StrictSection, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return shares of the training data, each in (0, 1] and once."""
    found = part.take("fractions", list, list(default))
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 < one <= 1:
            raise part.error(f"has the fraction {one}, which is not in (0, 1]", "fractions")
    if not found or len(set(found)) < len(found):
        raise part.error("has no fractions, or one of them twice", "fractions")
    return tuple(float(one) for one in found)
