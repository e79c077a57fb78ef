"""DINOv2's objective: DINO on views, the same on hidden patches (iBOT), and class tokens that keep apart (KoLeo)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, encode_by_size, full_precision
from monai_ssl_transfer.methods.centre import Centre, between_views, first_choices, row_by_row, sinkhorn_knopp, target
from monai_ssl_transfer.methods.dino import DINO, GLOBAL_VIEWS, DINOHeadOptions, DINOSchedule, by_image
from monai_ssl_transfer.methods.distributed import gather_with_gradient
from monai_ssl_transfer.methods.masks import BlockMasking, block_masks, require_keys
from monai_ssl_transfer.methods.momentum import cosine_to_one, follow
from monai_ssl_transfer.methods.tokens import embed_patches, patch_grid, require_vit, through_blocks

CENTRINGS = ("centre", "sinkhorn_knopp")
LEAST_DISTANCE = 1e-3
"""Between two unit vectors; below it rounding has its say, and the gradient of the logarithm is 1 / distance."""


class DINOv2(DINO):
    """DINOv2's losses (Oquab et al. 2023, arXiv 2304.07193, section 4), to train a released encoder further.

    As in DINO the student's views predict the teacher's other global view. Besides, blocks of patches of the student's
    global views are replaced by a trained mask token before positions are added, and predict what the teacher, which
    sees everything, says at these places (iBOT, arXiv 2111.07832, equation 2). KoLeo (section 4, after arXiv
    1806.03198) pushes each global class token, before the head, away from the nearest one of another image.

    What differs from the authors' code: KoLeo looks for the nearest among the images of all processes, there among
    those of one GPU, so that one process and several do the same; it leaves alone pairs that are equal up to rounding
    (see `koleo`). Images are compared, so that a batch in pieces needs two passes (`separable` is false). With
    Sinkhorn-Knopp the teacher's answer to an image depends on all others, so that no batch can go through in pieces.

    Args:
        encoder: the ViT to train, a timm VisionTransformer with a class token; registers and LayerScale are welcome.
        prototypes: output dimensions of the head for views.
        schedule: momentum and temperatures; by default those of the authors' short recipe, the teacher's temperature
            rising from 0.04 to 0.07 over 30 of 100 epochs.
        head: shape of the heads.
        patch_prototypes: output dimensions of a head of its own for patches; None shares the head for views.
        masking: blocks to hide.
        patch_weight: of iBOT's loss.
        koleo_weight: of KoLeo's.
        centring: "centre", the moving average of the authors' short recipe, or "sinkhorn_knopp", their long one's.

    Raises:
        TrainingError: for another centring.
    """

    separable: ClassVar[bool] = False

    def __init__(
        self,
        encoder: nn.Module,
        prototypes: int = 65536,
        schedule: DINOSchedule | None = None,
        head: DINOHeadOptions | None = None,
        patch_prototypes: int | None = None,
        masking: BlockMasking | None = None,
        patch_weight: float = 1.0,
        koleo_weight: float = 0.1,
        centring: str = "centre",
    ):
        if centring not in CENTRINGS:
            raise TrainingError(f"centring {centring!r} is unknown: choose {' or '.join(CENTRINGS)}.")
        vit = require_vit("DINOv2", encoder)
        schedule = schedule or DINOSchedule(momentum=0.992, teacher_temperature=0.07, warmup=0.3)
        head = head or DINOHeadOptions(learned_lengths=True)
        super().__init__(encoder, prototypes, schedule, head)
        self.patch_projection_head: nn.Module | None = None
        self.teacher_patch_projection_head: nn.Module | None = None
        if patch_prototypes is not None:
            self.patch_projection_head, self.teacher_patch_projection_head = self._heads(patch_prototypes, head)
        self.patch_centre = Centre(patch_prototypes or prototypes, schedule.centre_momentum)
        self.mask_token = nn.Parameter(torch.zeros(1, vit.embed_dim))
        self.masking = masking or BlockMasking()
        self.patch_weight = patch_weight
        self.koleo_weight = koleo_weight
        self.centring = centring
        self.in_one_piece = "" if centring == "centre" else f"--centring {centring}"

    def extra_repr(self) -> str:
        """See `DINO.extra_repr`."""
        weights = f"patch_weight={self.patch_weight}, koleo_weight={self.koleo_weight}"
        other = "" if self.centring == "centre" else f", centring={self.centring}"  # older runs name none
        return f"{self.schedule}, {self.masking}, {weights}{other}"

    @property
    def collapsed_loss(self) -> float | None:
        """Unknown: it depends on how many views of a batch are masked."""
        return None

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; "embedding" is the teacher's, since the student's view 0 has holes.

        The cross-entropies are computed here, image by image, for the outputs over the prototypes of all views and
        hidden patches would be too large to keep for more than a piece of a batch.
        """
        self._check_views("DINOv2", "dinov2", views)
        both = torch.cat(views[:GLOBAL_VIEWS])
        hidden = self._hidden(both, require_keys("DINOv2", keys))
        places = hidden.flatten().nonzero().squeeze(1).to(both.device)
        hidden = hidden.to(both.device)
        patch_head, teacher_patch_head = self._patch_heads()
        with torch.no_grad():
            seen = self._tokens(self.teacher_encoder, both)
            teacher = self.teacher_projection_head(seen[:, 0]).float()
            teacher_patches = teacher_patch_head(self._patches(seen)[places]).float()
        tokens = self._tokens(self.encoder, both, hidden)
        classes = [tokens[:, 0]]
        if len(views) > GLOBAL_VIEWS:
            classes.append(encode_by_size(lambda x: self._tokens(self.encoder, x)[:, 0], views[GLOBAL_VIEWS:]))
        student = self.projection_head(torch.cat(classes)).float()
        patches = patch_head(self._patches(tokens)[places]).float()
        outputs = (by_image(teacher, GLOBAL_VIEWS), by_image(student, len(views)), teacher_patches, patches)
        return {
            **self._losses(*outputs, hidden.flatten(1), places, progress),
            "classes": by_image(tokens[:, 0].float(), GLOBAL_VIEWS),
            "embedding": require_vit("DINOv2", self.teacher_encoder).forward_head(seen[: len(views[0])]).detach(),
        }

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Mean of the images' losses, and KoLeo over the images of all processes."""
        classes = representations["classes"]
        with full_precision(classes.device):
            koleos = [koleo(gather_with_gradient(view)) for view in classes.unbind(1)]
            spread = torch.stack(koleos).sum()
            views, patches = representations["view_loss"].mean(), representations["patch_loss"].mean()
            loss = views + self.patch_weight * patches + self.koleo_weight * spread
        if self.training:
            count = torch.tensor(GLOBAL_VIEWS * len(classes)).to(classes.device)
            self.centre.collect(representations["view_sum"].sum(0), count, progress)
            self.patch_centre.collect(
                representations["patch_sum"].sum(0), representations["patch_count"].sum(), progress
            )
        parts = {"view_loss": views, "patch_loss": patches, "koleo": spread}
        return {
            "loss": loss,
            **{name: value.detach() for name, value in parts.items()},
            "teacher_entropy": representations["teacher_entropy"].mean(),
            "teacher_prototypes": first_choices(representations["teacher_prototype"], self.prototypes),
            "teacher_temperature": torch.tensor(self.schedule.teacher_temperature_at(progress)),
            "momentum": torch.tensor(cosine_to_one(self.schedule.momentum, progress)),
        }

    def after_step(self, progress: float) -> None:
        """Move the teacher and the centres."""
        super().after_step(progress)
        student, teacher = self._patch_heads()
        if student is not self.projection_head:
            follow(student, teacher, cosine_to_one(self.schedule.momentum, progress))
        self.patch_centre.move()

    def _hidden(self, both: Tensor, keys: SampleKeys) -> Tensor:
        """Masks of the global views `(2 * B, rows, columns)`, on the device of the keys: on a CPU they need no wait."""
        return block_masks(keys, GLOBAL_VIEWS, patch_grid(self.encoder, both), self.masking)

    def _tokens(self, vit: nn.Module, views: Tensor, hidden: Tensor | None = None) -> Tensor:
        return through_blocks(vit, embed_patches(vit, views, hidden, self.mask_token))

    def _patches(self, tokens: Tensor) -> Tensor:
        """Tokens of the patches of all images in one row `(B * N, D)`."""
        return tokens[:, self.encoder.num_prefix_tokens :].flatten(0, 1)

    def _patch_heads(self) -> tuple[nn.Module, nn.Module]:
        """The student's and the teacher's head for patches."""
        if self.patch_projection_head is None or self.teacher_patch_projection_head is None:
            return self.projection_head, self.teacher_projection_head
        return self.patch_projection_head, self.teacher_patch_projection_head

    def _losses(
        self,
        teacher: Tensor,
        student: Tensor,
        teacher_patches: Tensor,
        patches: Tensor,
        hidden: Tensor,
        places: Tensor,
        progress: float,
    ) -> dict[str, Tensor]:
        """Losses per image, and what the centres are moved by.

        Args:
            teacher: outputs of the global views `(B, 2, K)`.
            student: outputs of all views `(B, V, K)`.
            teacher_patches: outputs of the hidden patches `(M, K')`.
            patches: the student's.
            hidden: `(2 * B, N)` bool.
            places: `(M,)`, where in `hidden.flatten()` they are.
            progress: position in the training.
        """
        temperature, sharpness = self.schedule.teacher_temperature_at(progress), self.schedule.student_temperature
        counts = hidden.sum(1)
        with full_precision(hidden.device):
            distribution = self._targets(teacher, self.centre, temperature)
            rows = row_by_row(self._targets(teacher_patches, self.patch_centre, temperature), patches, sharpness)
            # Each row has a place of its own: unlike adding rows up by image, this gives the same bits on a GPU.
            spread = rows.new_zeros(hidden.numel()).index_copy(0, places, rows).view(hidden.shape)
            patch_loss = by_image(spread.sum(1) / counts.clamp(min=1), GLOBAL_VIEWS).mean(1)
            return {
                "view_loss": between_views(distribution, student, sharpness),
                "patch_loss": patch_loss,
                "view_sum": teacher.sum(1),
                "patch_sum": by_image(
                    torch.segment_reduce(teacher_patches, "sum", lengths=counts, unsafe=True), GLOBAL_VIEWS
                ).sum(1),
                "patch_count": by_image(counts, GLOBAL_VIEWS).sum(1),
                "teacher_entropy": torch.special.entr(distribution[:, 0]).sum(1),
                "teacher_prototype": distribution[:, 0].argmax(1),
            }

    def _targets(self, teacher: Tensor, centre: Centre, temperature: float) -> Tensor:
        """The teacher's distributions `(..., K)`, from its outputs for both views at once as in the authors' code."""
        if self.centring == "centre":
            return target(teacher, centre.value, temperature)
        return sinkhorn_knopp(teacher.flatten(0, -2), temperature).view(teacher.shape)


def koleo(x: Tensor) -> Tensor:
    """Kozachenko-Leonenko estimate of how evenly unit vectors are spread, negated (arXiv 1806.03198, equation 2).

    lightly's KoLeoLoss, as the authors' code, takes the logarithm of any distance. Two views that show nothing (air
    beside the patient) have the same embedding up to rounding; the gradient of their distance would be noise, millions
    of times larger than that of the others. Distances below `LEAST_DISTANCE` count as that and have no gradient.

    Args:
        x: `(B, D)`, B at least 2, of any length.

    Returns:
        Scalar: minus the mean logarithm of the distance to the nearest other vector.
    """
    x = nn.functional.normalize(x, dim=1)
    with torch.no_grad():
        nearest = (x @ x.T).fill_diagonal_(-2.0).argmax(dim=1)
    squares = (x - x[nearest]).square().sum(dim=1)
    return -0.5 * squares.clamp(min=LEAST_DISTANCE**2).log().mean()
