"""Who wrote a checkpoint, by what is in it: one line of a table for each source that is known.

Names were read in the public repositories and files of the sources. A source names the file and its method; which
tensors are the encoder follows from the tensors themselves (`weights.formats`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What a source is recognised by.

    Args:
        entries: names at the top of the file, "" where they are those of the tensors.
        holder: entry that holds the encoder's tensors, "" for the top of the file, "a.b" for one within another.
        start: what the encoder's names begin with in there, without `module.` and `_orig_mod.`.
        names: all names of tensors in there, likewise, without what the wrappers put in front.
        family: "resnet" or "vit".
        format: of `files.Checkpoint`.
    """

    entries: Collection[str]
    holder: str
    start: str
    names: Collection[str]
    family: str
    format: str = ""


@dataclass(frozen=True)
class Source:
    """One kind of checkpoint.

    Args:
        name: what it is, for people.
        method: how it was pretrained, "" if the file does not tell.
        holder: entry with the tensors, None for any.
        start: of the encoder's names, None for any.
        marks: starts of names of which each must occur beside the encoder or in it.
        entries: names that must be at the top of the file.
        without: starts of names of which none may occur.
        family: "resnet", "vit" or "" for both.
        format: of the file, "" for any.
        uses: which tensors are used, for the table of sources.
        drops: which are not, for the table of sources.
    """

    name: str
    method: str = ""
    holder: str | None = None
    start: str | None = None
    marks: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    family: str = ""
    format: str = ""
    uses: str = ""
    drops: str = ""

    def fits(self, facts: Facts) -> bool:
        """Whether a checkpoint is of this kind."""
        return (
            self.holder in (None, facts.holder)
            and self.start in (None, facts.start)
            and self.family in ("", facts.family)
            and self.format in ("", facts.format)
            and all(entry in facts.entries for entry in self.entries)
            and all(_any(mark, facts.names) for mark in self.marks)
            and not any(_any(mark, facts.names) for mark in self.without)
        )


def _any(start: str, names: Collection[str]) -> bool:
    return any(name.startswith(start) for name in names)


OWN_CHECKPOINT = "pretraining checkpoint of ssl-transfer"
CARDED = "safetensors with our card"
SOURCES: tuple[Source, ...] = (
    Source("encoder of ssl-transfer, with its card", format=CARDED, uses="all", drops=""),
    Source("AugReg file of Google (npz)", "supervised", format="AugReg npz", uses="all, transposed", drops="head"),
    Source(
        OWN_CHECKPOINT,
        holder="method",
        entries=("format", "fingerprint", "iteration"),
        uses="encoder., of DINO teacher_encoder.",
        drops="heads, momentum encoder, student, optimizer",
    ),
    Source(
        "DINOv2 training file",
        "dinov2",
        "teacher",
        "backbone.",
        ("dino_head.",),
        family="vit",
        uses="teacher: backbone.; grouped blocks (FSDP) are numbered through",
        drops="dino_head., ibot_head., mask_token",
    ),
    Source(
        "DINO training file",
        "dino",
        "teacher",
        "backbone.",
        ("head.",),
        uses="teacher: backbone.",
        drops="student, heads, optimizer",
    ),
    Source("DINO teacher", "dino", "teacher", "backbone.", uses="teacher: backbone.", drops="heads"),
    Source(
        "DINO student alone",
        "dino",
        "student",
        "backbone.",
        uses="student, where there is no teacher",
        drops="heads, optimizer",
    ),
    Source(
        "MoCo v3 training file",
        "moco_v3",
        "state_dict",
        "base_encoder.",
        ("momentum_encoder.", "predictor."),
        uses="state_dict: module.base_encoder.",
        drops="fc. or head. (projector), predictor., momentum_encoder., optimizer",
    ),
    Source(
        "MoCo v2 training file",
        "moco_v2",
        "state_dict",
        "encoder_q.",
        ("encoder_k.", "queue"),
        uses="state_dict: module.encoder_q.",
        drops="fc. (projector), encoder_k., queue, optimizer",
    ),
    Source(
        "Barlow Twins training file",
        "barlow_twins",
        "model",
        "backbone.",
        ("projector.", "bn."),
        uses="model: module.backbone.",
        drops="projector., bn., optimizer",
    ),
    Source(
        "MONAI MaskedAutoEncoderViT",
        "mae",
        marks=("mask_tokens", "decoder_pos_embedding"),
        uses="names of MONAI's ViT; the last norm is its last block",
        drops="decoder_., mask_tokens",
    ),
    Source(
        "MAE file with decoder",
        "mae",
        "model",
        "",
        ("mask_token", "decoder_embed."),
        uses="model: the encoder's own names",
        drops="decoder_*, mask_token, optimizer",
    ),
    Source(
        "SSL4GIE fine-tuned detector",
        holder="model_state_dict",
        start="backbone.body.",
        marks=("rpn.", "roi_heads."),
        uses="model_state_dict: backbone.body.",
        drops="backbone.fpn., rpn., roi_heads., optimizer",
    ),
    Source(
        "SSL4GIE fine-tuned segmentation (smp)",
        holder="model_state_dict",
        start="encoder.",
        marks=("decoder.", "segmentation_head."),
        uses="model_state_dict: encoder.",
        drops="decoder., segmentation_head., optimizer",
    ),
    Source(
        "SSL4GIE fine-tuned classification",
        holder="model_state_dict",
        start="",
        marks=("lin_head.",),
        uses="model_state_dict: the encoder's own names",
        drops="lin_head., optimizer",
    ),
    Source(
        "SSL4GIE fine-tuned dense ViT",
        holder="model_state_dict",
        start="",
        marks=("decoder.",),
        family="vit",
        uses="model_state_dict: the encoder's own names",
        drops="decoder., optimizer",
    ),
    Source(
        "SSL4GIE fine-tuned depth ResNet",
        holder="model_state_dict",
        start="",
        marks=("decoder_levels.", "output_conv."),
        uses="model_state_dict: the encoder's own names",
        drops="decoder_levels., output_conv., optimizer",
    ),
    Source(
        "RadNet SimCLR checkpoint (checkpoint_N.tar)",
        "simclr",
        "",
        "encoder.",
        ("projector.", "ntxent."),
        uses="encoder.",
        drops="projector., ntxent.mask",
    ),
    Source(
        "RadNet fine-tuned segmentation (finetuned_model.tar)",
        holder="",
        start="unet.backbone.",
        marks=("unet.final_conv.",),
        uses="unet.backbone.",
        drops="unet.backbone.fc., unet.upsample_blocks., unet.final_conv., loss_criterion.",
    ),
    Source(
        "RadNet fine-tuned classification (finetuned_model.tar)",
        holder="",
        start="encoder.",
        marks=("head.weight",),
        without=("decoder.",),
        family="resnet",
        uses="encoder.",
        drops="head., buffers of the loss",
    ),
    Source(
        "Lightning checkpoint of a lightly DINO",
        "dino",
        "state_dict",
        "teacher_backbone.",
        ("student_backbone.",),
        uses="state_dict: teacher_backbone.",
        drops="student_backbone., heads, optimizer",
    ),
    Source(
        "Lightning checkpoint",
        holder="state_dict",
        entries=("pytorch-lightning_version",),
        uses="state_dict: backbone., model., encoder. or any other start; lightly's numbered ResNets",
        drops="heads, momentum encoder, optimizer",
    ),
    Source(
        "detector of torchvision",
        start="backbone.body.",
        marks=("rpn.", "roi_heads."),
        uses="backbone.body.",
        drops="backbone.fpn., rpn., roi_heads.",
    ),
    Source(
        "MONAI FlexibleUNet of ours",
        start="encoder.encoder.",
        marks=("decoder.", "segmentation_head."),
        uses="encoder.encoder.",
        drops="decoder., segmentation_head., pyramid of a ViT",
    ),
    Source(
        "MONAI FlexibleUNet",
        start="encoder.",
        marks=("decoder.blocks.0.convs.", "segmentation_head."),
        uses="encoder.",
        drops="decoder., segmentation_head.",
    ),
    Source(
        "network of segmentation_models_pytorch",
        start="encoder.",
        marks=("decoder.", "segmentation_head."),
        uses="encoder.",
        drops="decoder., segmentation_head.",
    ),
    Source("MONAI ViT", marks=("patch_embedding.patch_embeddings.",), family="vit", uses="renamed", drops="head"),
    Source("torchvision ViT", marks=("conv_proj.",), family="vit", uses="renamed", drops="heads."),
    Source("DINOv2 encoder", "dinov2", start="", marks=("mask_token",), family="vit", uses="all", drops="mask_token"),
    Source("DINOv2 encoder", "", start="", marks=("blocks.0.ls1.",), family="vit", uses="all", drops=""),
    Source("ResNet in the names of torchvision and timm", start="", family="resnet", uses="all", drops="fc."),
    Source("ViT in the names of timm, DINO, MAE and MoCo v3", start="", family="vit", uses="all", drops="head."),
)
"""The first one that fits is meant."""


def source_of_facts(facts: Facts) -> Source:
    """The source that a checkpoint is from; one without method if it is unknown."""
    found = next((source for source in SOURCES if source.fits(facts)), None)
    return found or Source(f"network around an encoder ({facts.start or facts.holder})")
