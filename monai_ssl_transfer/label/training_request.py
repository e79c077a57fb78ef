"""What a client asks of a training, checked: clients send numbers as text and lists where one value is meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai_ssl_transfer.errors import TrainingError

_OWN = "model.pt"


@dataclass(frozen=True)
class TrainingRequest:
    """The checked settings of a training.

    Args:
        epochs: number of epochs.
        validation_share: of the labelled images that validates.
        pretrained: start from the model in use, if there is one.
        device: as MONAI Label names it.
        multi_gpu: use several GPUs where there are several.
        gpus: their numbers; None for all.
        seed: of the division and of the training.
        shown: values of the bundle's own `displayable_configs`.
    """

    epochs: int
    validation_share: float
    pretrained: bool
    device: str
    multi_gpu: bool
    gpus: tuple[int, ...] | None
    seed: int
    shown: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, request: Mapping[str, Any], defaults: Mapping[str, Any]) -> TrainingRequest:
        """Check a request.

        Args:
            request: as MONAI Label's clients send it.
            defaults: the options of the training, for what is not asked for.

        Raises:
            TrainingError: a value that cannot be meant, or an option of MONAI Label's that is not there.
        """
        _refuse_foreign(request)
        asked = {name: _single(request.get(name, value)) for name, value in defaults.items()}
        known = ("device", "pretrained", "max_epochs", "val_split", "multi_gpu", "gpus")
        return cls(
            epochs=_whole("max_epochs", asked["max_epochs"], 1),
            validation_share=_share("val_split", asked["val_split"]),
            pretrained=_truth("pretrained", asked["pretrained"]),
            device=str(asked["device"] or ""),
            multi_gpu=_truth("multi_gpu", asked["multi_gpu"]),
            gpus=_numbers("gpus", asked["gpus"]),
            seed=_whole("seed", _single(request.get("seed", 0)), 0),
            shown={name: value for name, value in asked.items() if name not in known},
        )


def _refuse_foreign(request: Mapping[str, Any]) -> None:
    file = _single(request.get("model_filename")) or _OWN
    if file != _OWN:
        raise TrainingError(f"model_filename is {file!r}, and a bundle has {_OWN} only: leave it out.")
    run = request.get("run_id") or "run"
    if run != "run":
        raise TrainingError(f"run_id is {run!r}, and a training from the server is always 'run': leave it out.")
    tracking = str(_single(request.get("tracking")) or "none")
    if tracking.lower() != "none":
        raise TrainingError(
            f"tracking is {tracking!r}, and a training from the server is recorded in its run's folder only: leave it "
            "out."
        )


def _single(value: Any) -> Any:
    """The first of a list: clients send the whole list of choices back when nothing was chosen."""
    return (value[0] if value else None) if isinstance(value, list | tuple) else value


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = least - 1.0
    if isinstance(value, bool) or number < least or not number.is_integer():
        raise TrainingError(f"{name} is {value!r}: give a whole number of {least} or more.")
    return int(number)


def _share(name: str, value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = 0.0
    if isinstance(value, bool) or not 0 < share < 1:
        raise TrainingError(
            f"{name} is {value!r}: give the share of the labelled images that validates, above 0 and below 1."
        )
    return share


def _truth(name: str, value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = known.get(str(value).lower())
    if found is None:
        raise TrainingError(f"{name} is {value!r}: give true or false.")
    return found


def _numbers(name: str, value: Any) -> tuple[int, ...] | None:
    if value in (None, "", "all"):
        return None
    listed = [one.strip() for one in str(value).split(",")]
    if not all(one.isdigit() for one in listed):
        raise TrainingError(f"{name} is {value!r}: give 'all' or the numbers of GPUs, such as 0,1.")
    return tuple(int(one) for one in listed)
