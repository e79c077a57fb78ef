"""The methods as lightly's documentation shows them: its parts, in a plain PyTorch loop, on images in files.

Views go through the network one by one, momentum encoders move before the forward pass, and DINO's global views go
through the student with it, all as in lightly's examples. Heads have the sizes of the other side. MoCo v3 has no
example; it is written in their manner.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightly.data import LightlyDataset
from lightly.loss import BarlowTwinsLoss, DINOLoss, IBOTPatchLoss, KoLeoLoss, NTXentLoss
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.heads import (
    BarlowTwinsProjectionHead,
    DINOProjectionHead,
    DINOv2ProjectionHead,
    MoCoProjectionHead,
    ProjectionHead,
    SimCLRProjectionHead,
)
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from lightly.models.utils import (
    deactivate_requires_grad,
    get_at_index,
    normalize_mean_var,
    patchify,
    random_block_mask,
    random_token_mask,
    repeat_token,
    set_at_index,
    update_momentum,
)
from lightly.transforms import BYOLTransform, DINOTransform, MAETransform, MoCoV2Transform, SimCLRTransform
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from torch import Tensor, nn
from torch.utils.data import DataLoader

MOMENTUM, QUEUE, PROTOTYPES = 0.99, 4096, 2048
SIMCLR_HEAD, MOCO_HEAD, MOCO3_HEAD, BARLOW_HEAD = (2048, 128), (2048, 128), (4096, 256), (2048, 2048)
MAE_DECODER = {"width": 256, "depth": 4, "heads": 8}
"""Sizes that both sides have."""


def transform(method: str, size: int, local: int) -> Callable[[Any], list[Tensor]]:
    """lightly's transform of a method."""
    if method in ("simclr", "simclr_v2"):
        return SimCLRTransform(input_size=size)
    if method == "moco_v2":
        return MoCoV2Transform(input_size=size)
    if method in ("moco_v3", "barlow_twins"):
        first, second = BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size)
        return BYOLTransform(view_1_transform=first, view_2_transform=second)
    if method == "mae":
        return MAETransform(input_size=size)
    return DINOTransform(global_crop_size=size, local_crop_size=local, n_local_views=8)


class SimCLR(nn.Module):
    """Two views, one head."""

    def __init__(self, encoder: nn.Module, layers: int = 2):
        super().__init__()
        self.encoder = encoder
        self.head = SimCLRProjectionHead(encoder.num_features, *SIMCLR_HEAD, num_layers=layers)
        self.criterion = NTXentLoss(temperature=0.2)

    def forward(self, views: list[Tensor]) -> Tensor:
        return self.criterion(*[self.head(self.encoder(view)) for view in views])


class MoCoV2(nn.Module):
    """Query, key, queue."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, MoCoProjectionHead(encoder.num_features, *MOCO_HEAD)
        self.slow_encoder, self.slow_head = copy.deepcopy(encoder), copy.deepcopy(self.head)
        deactivate_requires_grad(self.slow_encoder)
        deactivate_requires_grad(self.slow_head)
        self.criterion = NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, MOCO_HEAD[1]))

    def forward(self, views: list[Tensor]) -> Tensor:
        update_momentum(self.encoder, self.slow_encoder, m=MOMENTUM)
        update_momentum(self.head, self.slow_head, m=MOMENTUM)
        query = self.head(self.encoder(views[0]))
        return self.criterion(query, self.slow_head(self.slow_encoder(views[1])).detach())


class MoCoV3(nn.Module):
    """Queries and keys of both views, a predictor, no queue."""

    def __init__(self, encoder: nn.Module, vit: bool):
        super().__init__()
        hidden, out = MOCO3_HEAD
        self.encoder = encoder
        self.head = _norm_head([encoder.num_features, *[hidden] * (2 if vit else 1), out])
        self.predictor = _norm_head([out, hidden, out])
        self.slow_encoder, self.slow_head = copy.deepcopy(encoder), copy.deepcopy(self.head)
        deactivate_requires_grad(self.slow_encoder)
        deactivate_requires_grad(self.slow_head)

    def forward(self, views: list[Tensor]) -> Tensor:
        update_momentum(self.encoder, self.slow_encoder, m=MOMENTUM)
        update_momentum(self.head, self.slow_head, m=MOMENTUM)
        queries = [nn.functional.normalize(self.predictor(self.head(self.encoder(view))), dim=1) for view in views]
        with torch.no_grad():
            keys = [nn.functional.normalize(self.slow_head(self.slow_encoder(view)), dim=1) for view in views]
        own = torch.arange(len(views[0]), device=views[0].device)
        pairs = ((queries[0], keys[1]), (queries[1], keys[0]))
        return torch.stack([nn.functional.cross_entropy(query @ key.T / 0.2, own) for query, key in pairs]).sum()


def _norm_head(widths: list[int]) -> ProjectionHead:
    """Linear layers with batch norm, ReLU between them."""
    last = len(widths) - 2
    pairs = enumerate(pairwise(widths))
    return ProjectionHead([(a, b, nn.BatchNorm1d(b), nn.ReLU() if i < last else None, False) for i, (a, b) in pairs])


class BarlowTwins(nn.Module):
    """Two views, a cross-correlation."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, BarlowTwinsProjectionHead(encoder.num_features, *BARLOW_HEAD)
        self.criterion = BarlowTwinsLoss()

    def forward(self, views: list[Tensor]) -> Tensor:
        return self.criterion(*[self.head(self.encoder(view)) for view in views])


class DINO(nn.Module):
    """Student and teacher, multi-crop."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        sizes = (encoder.num_features, 2048, 256, PROTOTYPES)
        self.encoder, self.head = encoder, DINOProjectionHead(*sizes, freeze_last_layer=1)
        self.slow_encoder, self.slow_head = copy.deepcopy(encoder), DINOProjectionHead(*sizes)
        deactivate_requires_grad(self.slow_encoder)
        deactivate_requires_grad(self.slow_head)
        self.criterion = DINOLoss(output_dim=PROTOTYPES)

    def forward(self, views: list[Tensor]) -> Tensor:
        update_momentum(self.encoder, self.slow_encoder, m=MOMENTUM)
        update_momentum(self.head, self.slow_head, m=MOMENTUM)
        with torch.no_grad():
            teacher = [self.slow_head(self.slow_encoder(view)) for view in views[:2]]
        student = [self.head(self.encoder(view)) for view in views]
        return self.criterion(teacher, student, epoch=0)


class MAE(nn.Module):
    """A quarter of the tokens through the encoder, all through the decoder."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.patch = encoder.patch_embed.patch_size[0]
        self.backbone = MaskedVisionTransformerTIMM(vit=encoder)
        self.length = self.backbone.sequence_length
        width = MAE_DECODER["width"]
        self.embed = nn.Linear(encoder.embed_dim, width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            self.length - 1, width, MAE_DECODER["depth"], MAE_DECODER["heads"]
        )
        self.predict = nn.Linear(width, self.patch**2 * 3)
        self.criterion = nn.MSELoss()

    def forward(self, views: list[Tensor]) -> Tensor:
        images = views[0]
        keep, mask = random_token_mask((len(images), self.length), mask_ratio=0.75, device=images.device)
        known = self.embed(self.backbone.encode(images=images, idx_keep=keep))
        tokens = repeat_token(self.decoder.mask_token, (len(images), self.length))
        decoded = self.decoder(set_at_index(tokens, keep, known.type_as(tokens)))
        target = get_at_index(patchify(images, self.patch), mask - 1)
        return self.criterion(self.predict(get_at_index(decoded, mask)), normalize_mean_var(target))


class DINOv2(nn.Module):
    """DINO, iBOT on hidden patches, KoLeo; one head for both."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.slow_backbone = MaskedVisionTransformerTIMM(vit=encoder, antialias=False, pos_embed_initialization="skip")
        self.backbone = copy.deepcopy(self.slow_backbone)
        sizes = (encoder.embed_dim, 2048, 256, PROTOTYPES)
        self.head, self.slow_head = DINOv2ProjectionHead(*sizes), DINOv2ProjectionHead(*sizes)
        for module in (self.slow_backbone, self.slow_head):
            deactivate_requires_grad(module)
            module.eval()
        self.dino, self.ibot, self.koleo = DINOLoss(output_dim=PROTOTYPES), IBOTPatchLoss(PROTOTYPES), KoLeoLoss()

    def forward(self, views: list[Tensor]) -> Tensor:
        whole, local = torch.cat(views[:2]), torch.cat(views[2:])
        rows, columns = self.backbone.vit.patch_embed.grid_size
        # its default of 4 needs 40 patches at least
        least = min(4, rows * columns // 10)
        blocks = random_block_mask((len(whole), rows, columns), min_num_masks_per_block=least, device=whole.device)
        mask = torch.cat([blocks.new_zeros(len(whole), 1), blocks.flatten(1)], dim=1)
        with torch.no_grad():
            seen = self.slow_backbone.encode(whole)
            teacher, teacher_patches = self.slow_head(seen[:, 0]), self.slow_head(seen[mask])
        features = self.backbone.encode(whole, mask=mask)
        patches = self.head(features[mask])
        student = torch.cat([self.head(features[:, 0]), self.head(self.backbone.encode(local)[:, 0])])
        loss = self.dino(teacher.chunk(2), student.chunk(len(views)), teacher_temp=0.04)
        loss = loss + self.ibot(teacher_patches, patches, mask=blocks, teacher_temp=0.04)
        return loss + 0.1 * sum(self.koleo(part) for part in features[:, 0].chunk(2))

    def after_step(self) -> None:
        update_momentum(self.backbone, self.slow_backbone, m=MOMENTUM)
        update_momentum(self.head, self.slow_head, m=MOMENTUM)


MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "simclr": SimCLR,
    "simclr_v2": lambda encoder: SimCLR(encoder, layers=3),
    "moco_v2": MoCoV2,
    "moco_v3": lambda encoder: MoCoV3(encoder, vit=hasattr(encoder, "blocks")),
    "barlow_twins": BarlowTwins,
    "dino": DINO,
    "mae": MAE,
    "dinov2": DINOv2,
}


class Lightly:
    """The documented loop over a folder of images.

    Args:
        method: name of the method.
        encoder: freshly built.
        folder: image files.
        sizes: "image_size", "local", "batch", "workers", "device", "precision".
    """

    def __init__(self, method: str, encoder: nn.Module, folder: Path, sizes: dict[str, Any]):
        warnings.simplefilter("ignore")
        self.device, self.bf16 = sizes["device"], sizes["precision"] == "bf16"
        self.model = MODELS[method](encoder).to(self.device).train()
        if method == "dinov2":
            self.model.slow_backbone.eval()
            self.model.slow_head.eval()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        dataset = LightlyDataset(str(folder), transform=transform(method, sizes["image_size"], sizes["local"]))
        self.loader = DataLoader(
            dataset,
            batch_size=sizes["batch"],
            shuffle=True,
            drop_last=True,
            num_workers=sizes["workers"],
            persistent_workers=sizes["workers"] > 0,
            pin_memory=self.device != "cpu",
        )

    def steps(self, count: int, done: Callable[[int], None]) -> None:
        """Make so many optimizer steps; `done` is called with the number of each."""
        made = 0
        while made < count:
            for batch in self.loader:
                views = [view.to(self.device, non_blocking=True) for view in batch[0]]
                with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
                    loss = self.model(views)
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                if hasattr(self.model, "after_step"):
                    self.model.after_step()
                made += 1
                done(made)
                if made == count:
                    return
