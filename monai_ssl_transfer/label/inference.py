"""Inference of a bundle in MONAI Label: its own weights or an error, and files that it can read or an error."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.transform.writer import Writer
from monailabel.utils.others.generic import device_list

from monai_ssl_transfer.engines.transfer.fine_tuning import load_model
from monai_ssl_transfer.errors import LabelError, UserError
from monai_ssl_transfer.label.image_files import LOSSY, PHOTOGRAPH, VOLUME, extension, file_facts

logger = logging.getLogger(__name__)

MODEL = "model.pt"
_SEGMENTATION = "segmentation"
_DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps")


class StrictBundleInference(BundleInferTask):
    """A bundle's inference that never answers with weights other than those of its ``models/model.pt``.

    The stock task loads with ``strict=False``, takes any other ``.pt`` in ``models`` and any path that a client names.

    Args:
        path: folder of the bundle.
        conf: settings of the app.
    """

    dimension: int

    def __init__(self, path: str, conf: dict[str, str]) -> None:
        self.bundle_path = path
        self.bundle_name = Path(path).name
        self.valid = False
        self._conf = conf
        self.description = ""
        self._loaded: dict[str, tuple[tuple[int, ...], torch.nn.Module]] = {}
        if self.model_path.is_file():
            self._prepare()

    @property
    def model_path(self) -> Path:
        """Where the weights are, or will be after the first training."""
        return Path(self.bundle_path) / "models" / MODEL

    @property
    def without_weights(self) -> str:
        """Why the bundle cannot answer, in a sentence; "" when it can."""
        if self.is_valid():
            return ""
        return f"{self.bundle_name} has no trained weights yet: label images and train it first."

    def is_valid(self) -> bool:
        """Whether there are weights, now; the first training makes a bundle appear without a restart."""
        if not self.model_path.is_file():
            return False
        if not self.valid:
            self._prepare()
        return self.valid

    def _prepare(self) -> None:
        """Read the configuration, which the stock task does only where weights are."""
        try:
            super().__init__(self.bundle_path, self._conf, load_strict=True)
        except Exception as error:  # a configuration may raise whatever its expressions do
            raise LabelError(
                f"bundle {self.bundle_name} cannot be used ({reason_of(error)}): mend {self.bundle_path}/configs."
            ) from error
        if not self.valid:
            raise LabelError(f"bundle {self.bundle_name} has no configs/inference.json: copy a whole bundle.")
        self.path = [str(self.model_path)]
        self._config["model_filename"] = [MODEL]
        self.photographs = _reads_photographs(self.bundle_config, self.dimension)
        self.dimension = 2 if self.photographs else 3  # metadata of slice-wise bundles counts the network's axes
        metadata = json.loads((Path(self.bundle_path) / "configs" / "metadata.json").read_text(encoding="utf-8"))
        outputs = metadata["network_data_format"]["outputs"]
        self.makes_masks = next(iter(outputs.values())).get("format") == _SEGMENTATION

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Answer a request.

        Args:
            request: of MONAI Label; ``image`` is a path, or an array that another process sent.
            callbacks: of MONAI Label.

        Returns:
            File of the mask, if there is one, and what else is to be said.

        Raises:
            LabelError: no weights, another model asked for, or an image that the bundle cannot read.
        """
        if not self.is_valid():
            raise LabelError(self.without_weights, 409)
        self._check(request)
        answer: tuple[str | None, dict[str, Any]] = super().__call__(request, callbacks)
        return answer

    def _check(self, request: dict[str, Any]) -> None:
        asked = request.get("model_filename") or MODEL
        if asked not in (MODEL, [MODEL]):
            raise LabelError(f"{self.bundle_name} has one model, {MODEL}: leave model_filename out.")
        _check_options(request)
        image = request.get("image")
        if isinstance(image, str):
            shown = f"image {request.get('shown_image') or Path(image).name}"
            facts = file_facts(Path(image), shown)
            takes = "photograph" if self.photographs else "volume"
            if facts.kind != takes or (takes == "volume" and facts.shape and len(facts.shape) != 3):
                kind = facts.kind if facts.kind != takes else f"file of {len(facts.shape)} axes"
                what = "photographs (PNG, JPEG, ...)" if self.photographs else "volumes of three axes (NIfTI, ...)"
                raise LabelError(f"{shown} is a {kind}, but {self.bundle_name} takes {what}: choose another.", 415)

    def run_pre_transforms(self, data: dict[str, Any], transforms: Any) -> dict[str, Any]:
        """Read the image; what cannot be read is the client's error.

        Raises:
            LabelError: the image is damaged or the bundle refuses it.
        """
        path = str(data.get("image_path") or "")
        shown = str(data.pop("shown_image", None) or Path(path).name)
        try:
            prepared: dict[str, Any] = super().run_pre_transforms(data, transforms)
        except Exception as error:  # readers raise whatever the damage leads to
            said = reason_of(error).replace(path, shown) if path else reason_of(error)
            raise LabelError(f"image {shown} cannot be used by {self.bundle_name}: {said}", 422) from error
        return prepared

    def _get_network(self, device: str, data: Any) -> torch.nn.Module:
        """The network with the weights that are in place now, every tensor of them."""
        try:
            stat = self.model_path.stat()
        except OSError as error:
            raise LabelError(f"{self.bundle_name} has no trained weights yet: train it first.", 409) from error
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._loaded.get(device)
        if known is None or known[0] != stamp:
            network = copy.deepcopy(self.network)
            try:
                load_model(network, self.model_path)
            except UserError:
                raise
            except Exception as error:  # torch.load raises whatever the damage leads to
                raise LabelError(
                    f"{self.model_path} cannot be read ({reason_of(error)}): restore an earlier version.", 409
                ) from error
            known = self._loaded[device] = stamp, network.to(device)
        known[1].train(self.train_mode)
        return known[1]

    def clear_cache(self) -> None:
        """Forget the loaded networks."""
        self._loaded.clear()

    clear = clear_cache

    def writer(self, data: dict[str, Any], extension_: str | None = None, dtype: Any = None) -> tuple[Any, Any]:
        """Write the result: lossless, masks as bytes, volumes with exactly the affine of their image."""
        if self.type not in (_SEGMENTATION, "deepedit", "deepgrow"):
            answer: tuple[Any, Any] = super().writer(data, extension_, dtype)
            return answer
        own = extension(str(data.get("image_path") or ""))
        if extension_ is None and not data.get("result_extension") and own.lower() in (*LOSSY, ".bmp"):
            extension_ = ".png"
        if self.makes_masks and data.get("result_dtype") is None:
            dtype = np.uint8 if dtype is None else dtype
        for key, value in (("result_extension", extension_), ("result_dtype", dtype)):
            if value is not None:
                data[key] = value
        data["labels"] = self.labels
        written: tuple[Any, Any] = Writer(label=self.output_label_key, json=self.output_json_key, nibabel=True)(data)
        return written


def _check_options(request: dict[str, Any]) -> None:
    """Refuse what the stock code would end in a traceback for, or would take for a part of a path."""
    wanted = request.get("result_extension")
    if wanted and str(wanted).lower() not in (*PHOTOGRAPH, *VOLUME):
        raise LabelError(f"masks are not written as '{wanted}': leave result_extension out.")
    level, kind, device = (request.get(name) for name in ("logging", "result_dtype", "device"))
    if level and str(level).upper() not in logging.getLevelNamesMapping():
        raise LabelError(f"there is no log level '{level}': leave logging out.")
    device = device[0] if isinstance(device, list) and device else device
    if device and not _DEVICE.fullmatch(str(device)) and device not in device_list():
        raise LabelError(f"there is no device '{device}': give cpu, cuda or cuda:0, or leave device out.")
    try:
        np.dtype(kind)
    except TypeError as error:
        raise LabelError(f"there is no type of numbers '{kind}': leave result_dtype out.") from error


def reason_of(error: BaseException) -> str:
    """The sentence of an error.

    Args:
        error: any; those of an exported bundle's own code are of other classes of the same name.

    Returns:
        The user's sentence where there is one in the chain, else the first line with the error's type.
    """
    one: BaseException | None = error
    while one is not None:
        if any(kind.__name__ == UserError.__name__ for kind in type(one).__mro__):
            return str(one)
        one = one.__cause__ or one.__context__
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0][:200]}"


def _reads_photographs(config: Any, dimension: int) -> bool:
    """Whether the preprocessing reads pictures; the metadata of slice-wise CT bundles says 2-D, too."""
    steps = json.dumps(config.get("preprocessing") or config.get("pre_transforms"), default=str)
    if "LoadFramed" in steps:
        return True
    return dimension == 2 and not any(one in steps for one in ("Orientationd", "Spacing", "HUToChannels"))
