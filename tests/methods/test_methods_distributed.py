"""Two processes with half a batch each are one process with the whole batch: loss, gradients, queue, centre."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_encoder import TinyEncoder, random_views
from torch import multiprocessing, nn

from monai_ssl_transfer.methods import DINO, DINOHeadOptions, MoCoV2, SimCLR, SSLMethod
from monai_ssl_transfer.methods.distributed import encode_interleaved

NAMES = ("simclr", "moco", "dino")


def built(name: str) -> SSLMethod:
    """Without batch norm, whose statistics are per process."""
    torch.manual_seed(0)
    encoder = TinyEncoder(batch_norm=False)
    if name == "simclr":
        method: SSLMethod = SimCLR(encoder, 32, 8)
        layers = [layer for layer in method.projection_head.layers if not isinstance(layer, nn.BatchNorm1d)]
        method.projection_head.layers = nn.Sequential(*layers)
    elif name == "moco":
        method = MoCoV2(encoder, queue_size=20, hidden_dim=32, output_dim=8)
    else:
        method = DINO(encoder, 24, head=DINOHeadOptions(32, 8))
    return method


def state_after_backward(method: SSLMethod, network: nn.Module, part: slice) -> dict[str, torch.Tensor]:
    views = [view[part] for view in random_views(0, batch=8)]
    loss = network(views, 0.5)["loss"]
    loss.backward()
    gradients = {f"gradient {key}": p.grad for key, p in method.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(method.named_buffers())}


def work(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    result = {}
    for name in NAMES:
        method = built(name)
        network = nn.parallel.DistributedDataParallel(method)
        result[name] = state_after_backward(method, network, slice(4 * rank, 4 * rank + 4))
        losses = result[name]["loss"].clone()
        dist.all_reduce(losses)
        result[name]["loss"] = losses / 2
    x = torch.arange(8.0)[:, None]
    result["order"] = encode_interleaved(nn.Identity(), x[4 * rank : 4 * rank + 4])
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(ranks: list[dict], name: str) -> None:
    method = built(name)
    single = state_after_backward(method, method, slice(None))
    for rank in ranks:
        assert rank[name].keys() == single.keys()
        for key, value in single.items():
            if "bank_ptr" not in key:  # lightly's, uninitialised and unused
                assert torch.allclose(rank[name][key], value, rtol=1e-4, atol=1e-6), key


def test_interleaving_keeps_the_order(ranks: list[dict]) -> None:
    assert torch.cat([rank["order"] for rank in ranks]).flatten().tolist() == list(range(8))


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_interleaved_groups_keep_the_order_and_mix(groups: int) -> None:
    seen: list[list[float]] = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.flatten().tolist())
            return 2 * x

    x = torch.arange(7.0)[:, None]
    assert encode_interleaved(Recorder(), x, groups).flatten().tolist() == (2 * x).flatten().tolist()
    assert len(seen) == groups
    assert seen[0] == x.flatten().tolist()[::groups]
