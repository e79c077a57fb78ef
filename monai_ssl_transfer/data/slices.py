"""Slices of a store as a PyTorch dataset, and the loader that gives them to pretraining."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_ssl_transfer.errors import DataError

AIR = -1024  # HU, what lies outside a slice's field of view
CHANNELS = ("windows", "single", "neighbours", "rgb")


class SliceDataset(Dataset):
    """Raw slices in HU, or frames in RGB; windows, views and everything random come later, on the model's device.

    Args:
        store: a ``SliceStore`` or the path of one.
        channels: ``"windows"`` and ``"single"`` read the slice, ``"neighbours"`` reads the slice below, the slice and
            the slice above in the same series (the slice itself stands in at the ends); ``"rgb"`` reads a frame of a
            store of photographs.
        subset: slice numbers to use; default all of them.

    Raises:
        DataError: when ``channels`` is unknown or not of the store's kind, or the subset leaves the store.
    """

    def __init__(self, store: Any, channels: str = "windows", subset: Sequence[int] | np.ndarray | None = None) -> None:
        if channels not in CHANNELS:
            raise DataError(f"channels {channels!r} is unknown; choose one of {', '.join(CHANNELS)}.")
        self.store = store if hasattr(store, "read") else _opened(store)
        if (getattr(self.store, "pixels", "hu") == "rgb") != (channels == "rgb"):
            kind, fitting = ("CT slices", CHANNELS[:-1]) if channels == "rgb" else ("RGB frames", CHANNELS[-1:])
            raise DataError(f"{self.store} holds {kind}; use channels {' or '.join(fitting)} instead of {channels}.")
        self.channels = channels
        self.subset = None if subset is None else np.asarray(subset, dtype=np.int64)
        if (
            self.subset is not None
            and self.subset.size
            and not 0 <= self.subset.min() <= self.subset.max() < len(self.store)
        ):
            raise DataError(
                f"The subset names slices outside the store's {len(self.store)}; make it anew from this store."
            )

    def __len__(self) -> int:
        return len(self.store) if self.subset is None else len(self.subset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One slice.

        Returns:
            ``"image"``: int16 HU of shape (1, H, W), or (3, H, W) with neighbours, or uint8 RGB of shape (3, H, W);
            ``"index"``: its number.
        """
        index = int(position) if self.subset is None else int(self.subset[position])
        if self.channels == "rgb":
            return {"image": torch.from_numpy(self.store.read(index)).permute(2, 0, 1), "index": index}
        if self.channels == "neighbours":
            below, above = self.store.neighbours(index)
            image = _stacked([self.store.read(number) for number in (below, index, above)], index)
        else:
            image = self.store.read(index)[None]
        return {"image": torch.from_numpy(np.ascontiguousarray(image, dtype=np.int16)), "index": index}


def _opened(path: Any) -> Any:
    from monai_ssl_transfer.data.store import SliceStore

    return SliceStore(path)


def _stacked(slices: list[np.ndarray], index: int) -> np.ndarray:
    if len({one.shape for one in slices}) > 1:
        raise DataError(
            f"Slice {index} and its neighbours differ in shape; use --channels windows or single for this store."
        )
    return np.stack(slices)


def collate_slices(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Put slices of different sizes into one batch, padded with air (frames: black) at the bottom and on the right.

    Args:
        items: what ``SliceDataset`` gives.

    Returns:
        ``"image"`` (B, C, Hmax, Wmax) int16 HU or uint8 RGB, ``"size"`` (B, 2) int64 true rows and columns,
        ``"index"`` (B,) int64.
    """
    images = [item["image"] for item in items]
    size = torch.tensor([image.shape[-2:] for image in images], dtype=torch.int64)
    rows, columns = size.amax(dim=0).tolist()
    dtype, outside = images[0].dtype, 0 if images[0].dtype == torch.uint8 else AIR
    batch = torch.full((len(images), images[0].shape[0], rows, columns), outside, dtype=dtype)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = image
    return {"image": batch, "size": size, "index": torch.tensor([item["index"] for item in items], dtype=torch.int64)}


def slice_loader(dataset: Dataset, batch_sampler: Sampler[list[int]], workers: int = 0) -> DataLoader:
    """The loader for pretraining; it draws nothing from the global random state, so resuming stays exact.

    Args:
        dataset: a ``SliceDataset``, or another one with its own ``collate``.
        batch_sampler: an ``ArithmeticBatchSampler`` or a ``MixedBatchSampler``.
        workers: processes that read; 0 reads in the training process.
    """
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=getattr(dataset, "collate", collate_slices),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=_leave_interrupts_to_trainer,
    )


def _leave_interrupts_to_trainer(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; the trainer must still get the batches of its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
