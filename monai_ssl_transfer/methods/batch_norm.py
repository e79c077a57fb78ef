"""Batch norm that sees the images of all processes together, on a GPU and on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from monai_ssl_transfer.errors import TrainingError

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CPUSyncBatchNorm(_BatchNorm):
    """Synchronised batch norm on a CPU, which torch's own refuses; parameters and buffers have the same names.

    In training, mean and variance are those of the images of all processes (Ioffe and Szegedy 2015, arXiv 1502.03167,
    algorithm 1), and gradients flow through them to all processes. Elsewhere it is plain batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise.

        Args:
            input: `(B, C)` or `(B, C, ...)`; B may differ between the processes.

        Returns:
            The same shape and dtype.
        """
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        rest = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        sums = torch.cat([x.sum(rest), x.new_tensor([x.numel() / x.shape[1]])])
        sums = _SumOverProcesses.apply(sums)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean.view(shape)
        variance = _SumOverProcesses.apply(centred.square().sum(rest)) / count
        self._move_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise TrainingError(f"batch norm needs (B, C, ...) and got {tuple(input.shape)}: keep the batch dimension.")

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce whose gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a network see the images of all processes; parameters stay the same objects.

    Args:
        network: changed in place.
        device: where it runs; on a GPU torch's SyncBatchNorm is used.

    Raises:
        TrainingError: for a kind of batch norm that has no synchronised form on a CPU.
    """
    if device.type == "cuda":
        return convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, CPUSyncBatchNorm):
                setattr(parent, name, _synchronised(child))
    return network


def _synchronised(plain: _BatchNorm) -> CPUSyncBatchNorm:
    if type(plain) not in _PLAIN:
        raise TrainingError(
            f"{type(plain).__name__} cannot be synchronised between processes on a CPU: use one process, or GPUs."
        )
    layer = CPUSyncBatchNorm(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
    layer._parameters = plain._parameters  # the very objects that the optimizer holds
    layer._buffers = plain._buffers
    return layer.train(plain.training)
