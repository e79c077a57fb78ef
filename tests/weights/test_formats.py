"""Every known source is recognised by its real names and shapes; what is not used is listed with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from monai.networks import nets
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_detector
from monai_ssl_transfer.weights.reading.files import Checkpoint
from monai_ssl_transfer.weights.reading.formats import FoundEncoder, find_encoder

State = dict[str, Tensor]


def tensors(shapes: Mapping[str, Any]) -> State:
    """Tensors of these shapes that take no memory."""
    return {name: torch.zeros(()).expand(tuple(shape)) for name, shape in shapes.items()}


def names_of(build: Callable[[], nn.Module]) -> State:
    with torch.device("meta"):
        network = build()
    return tensors({name: tensor.shape for name, tensor in network.state_dict().items()})


def starting(start: str, state: Mapping[str, Any]) -> State:
    return {start + name: tensor for name, tensor in state.items()}


def found_in(content: Mapping[str, Any], file_format: str = "torch") -> FoundEncoder:
    return find_encoder(Checkpoint(Path("some.pth"), file_format, content))


def resnet50(fc: bool = False) -> State:
    state = names_of(torchvision.models.resnet50)
    return state if fc else {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def vit(size: str = "base", head: bool = False, **options: Any) -> State:
    return names_of(lambda: timm.create_model(f"vit_{size}_patch16_224", num_classes=1000 if head else 0, **options))


def dinov2(size: str = "base", registers: bool = False) -> State:
    """Meta's names: positions of the class token and of 37 x 37 patches, whether there are registers or not."""
    width = {"small": 384, "base": 768}[size]
    state = names_of(lambda: timm.create_model(f"vit_{size}_patch14_dinov2", num_classes=0, img_size=518))
    return state | tensors({"mask_token": (1, width)} | ({"register_tokens": (1, 4, width)} if registers else {}))


def chunked(state: State) -> State:
    """Blocks in four groups, as in training checkpoints with FSDP."""
    named = {}
    for name, tensor in state.items():
        parts = name.split(".")
        group = [str(int(parts[1]) // 3)] if parts[0] == "blocks" else []
        named[".".join([parts[0], *group, *parts[1:]])] = tensor
    return named


def norm(start: str, width: int, affine: bool = True) -> State:
    kinds = ("weight", "bias") if affine else ()
    both = {f"{start}.{kind}": (width,) for kind in (*kinds, "running_mean", "running_var")}
    return tensors(both | {f"{start}.num_batches_tracked": ()})


def dino_head(width: int, prototypes: int = 65536) -> State:
    shapes = {"mlp.0.weight": (2048, width), "mlp.0.bias": (2048,), "mlp.2.weight": (2048, 2048), "mlp.2.bias": (2048,)}
    shapes |= {"mlp.4.weight": (256, 2048), "mlp.4.bias": (256,), "last_layer.weight_g": (prototypes, 1)}
    return tensors(shapes | {"last_layer.weight_v": (prototypes, 256)})


OPTIMIZER = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def dino(state: State, width: int) -> dict[str, Any]:
    head = starting("head.", dino_head(width))
    student = starting("module.", starting("backbone.", state) | head)
    rest = {"optimizer": OPTIMIZER, "epoch": 400, "fp16_scaler": None, "dino_loss": {"center": torch.zeros(1, 5)}}
    return {"student": student, "teacher": starting("backbone.", state) | head, **rest}


def dinov2_teacher(state: State, width: int) -> dict[str, Any]:
    heads = starting("dino_head.", dino_head(width)) | starting("ibot_head.", dino_head(width))
    return {"teacher": starting("backbone.", state) | heads}


def moco_v2() -> dict[str, Any]:
    head = tensors({"fc.0.weight": (2048, 2048), "fc.0.bias": (2048,), "fc.2.weight": (128, 2048), "fc.2.bias": (128,)})
    both = starting("encoder_q.", resnet50() | head) | starting("encoder_k.", resnet50() | head)
    queue = tensors({"queue": (128, 65536), "queue_ptr": (1,)})
    state = starting("module.", both | queue)
    return {"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": OPTIMIZER}


def moco_v3(state: State, width: int, head: str) -> dict[str, Any]:
    hidden = tensors({f"{head}.0.weight": (4096, width), f"{head}.3.weight": (256, 4096)})
    projector = hidden | norm(f"{head}.1", 4096) | norm(f"{head}.4", 256, affine=False)
    predictor = tensors({"0.weight": (4096, 256), "3.weight": (256, 4096)}) | norm("1", 4096)
    both = starting("base_encoder.", state | projector) | starting("momentum_encoder.", state | projector)
    everything = starting("module.", both | starting("predictor.", predictor))
    return {
        "epoch": 300,
        "arch": "resnet50",
        "state_dict": everything,
        "optimizer": OPTIMIZER,
        "scaler": {"scale": 1.0},
    }


def barlow_twins() -> dict[str, Any]:
    shapes = {"0.weight": (8192, 2048), "3.weight": (8192, 8192), "6.weight": (8192, 8192)}
    projector = tensors(shapes) | norm("1", 8192) | norm("4", 8192)
    beside = starting("projector.", projector) | norm("bn", 8192, affine=False)
    state = starting("module.", starting("backbone.", resnet50()) | beside)
    return {"epoch": 1000, "model": state, "optimizer": OPTIMIZER}


def mae(state: State) -> dict[str, Any]:
    with torch.device("meta"):
        blocks = timm.create_model("vit_base_patch16_224", embed_dim=512, depth=8, num_heads=16, num_classes=0)
    decoder = {name: tensor for name, tensor in blocks.state_dict().items() if name.startswith("blocks.")}
    decoder = {f"decoder_{name}": tensor.shape for name, tensor in decoder.items()}
    shapes = {"mask_token": (1, 1, 512), "decoder_pos_embed": (1, 197, 512), "decoder_embed.weight": (512, 768)}
    shapes |= {"decoder_embed.bias": (512,), "decoder_norm.weight": (512,), "decoder_norm.bias": (512,)}
    shapes |= {"decoder_pred.weight": (768, 512), "decoder_pred.bias": (768,)}
    content = {"model": state | tensors(decoder | shapes), "optimizer": OPTIMIZER, "epoch": 799}
    return content | {"scaler": {}, "args": object()}


def radnet_simclr() -> State:
    shapes = {"projector.0.weight": (2048, 2048), "projector.2.weight": (2048, 2048), "projector.4.weight": (128, 2048)}
    return starting("encoder.", resnet50()) | tensors(shapes | {"ntxent.mask": (512, 512)})


def radnet_segmentation() -> State:
    blocks = {f"unet.upsample_blocks.{n}.conv1.weight": (64, 64, 3, 3) for n in range(5)}
    rest = {"unet.final_conv.weight": (3, 16, 1, 1), "unet.final_conv.bias": (3,), "loss_criterion.XE.weight": (3,)}
    return starting("unet.backbone.", resnet50(fc=True)) | tensors(blocks | rest)


def ssl4gie(state: Mapping[str, Tensor]) -> dict[str, Any]:
    rest = {"optimizer_state_dict": OPTIMIZER, "scaler_state_dict": {}, "val_perf": 0.9, "test_perf": 0.8}
    return {"epoch": 50, "model_state_dict": dict(state), **rest, "random_state": [1, 2]}


def lin_head(width: int) -> State:
    return tensors({"lin_head.weight": (23, width), "lin_head.bias": (23,)})


def detector(name: str) -> State:
    return tensors({key: tensor.shape for key, tensor in build_detector(name).state_dict().items()})


def lightning(state: State, **more: Any) -> dict[str, Any]:
    rest = {"epoch": 9, "global_step": 90, "optimizer_states": [OPTIMIZER], "lr_schedulers": [], "loops": {}}
    return {"state_dict": state, "pytorch-lightning_version": "2.4.0", **rest, **more}


def lightly_moco() -> dict[str, Any]:
    """lightly's examples: the layers of a torchvision ResNet in a row, under their numbers."""
    with torch.device("meta"):
        row = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
    state = tensors({name: tensor.shape for name, tensor in row.state_dict().items()})
    heads = tensors(
        {"projection_head.layers.0.weight": (512, 512), "projection_head_momentum.layers.0.weight": (512, 512)}
    )
    return lightning(starting("backbone.", state) | starting("backbone_momentum.", state) | heads)


def lightly_dino() -> dict[str, Any]:
    both = starting("student_backbone.", vit("small")) | starting("teacher_backbone.", vit("small"))
    heads = starting("student_head.", dino_head(384)) | starting("teacher_head.", dino_head(384))
    return lightning(both | heads)


def own_checkpoint(encoders: tuple[str, ...], method: str) -> dict[str, Any]:
    state = {name: each for encoder in encoders for name, each in starting(encoder, vit("small")).items()}
    state |= tensors({"projection_head.layers.0.weight": (2048, 384)})
    settings = {"format": 1, "fingerprint": {"method": f"{method}(...)"}, "iteration": 7, "random": [{}]}
    return {**settings, "method": state, "optimizer": OPTIMIZER, "handlers": {}}


def monai_vit() -> State:
    return names_of(lambda: build_classifier("vit_small", image_size=224))


def monai_mae() -> State:
    options = {"hidden_size": 384, "mlp_dim": 1536, "num_heads": 6, "spatial_dims": 2, "qkv_bias": True}
    return names_of(lambda: nets.MaskedAutoEncoderViT(3, 224, 16, **options))


RESNET, VIT = "ResNet in the names of torchvision and timm", "ViT in the names of timm, DINO, MAE and MoCo v3"
SSL4GIE = "SSL4GIE fine-tuned"
FLEXIBLE = "MONAI FlexibleUNet"
Case = tuple[Callable[[], Mapping[str, Any]], str, str, str, int, dict[str, str]]
CASES: dict[str, Case] = {
    "torchvision ResNet50": (lambda: resnet50(True), RESNET, "", "resnet50", 318, {"fc.weight": "head"}),
    "headless, GastroNet RN50": (resnet50, RESNET, "", "resnet50", 318, {}),
    "GastroNet VITS": (lambda: vit("small"), VIT, "", "vit_small", 150, {}),
    "timm ViT-B with head": (lambda: vit("base", True), VIT, "", "vit_base", 150, {"head.weight": "head"}),
    "timm ResNet50": (
        lambda: names_of(lambda: timm.create_model("resnet50")),
        RESNET,
        "",
        "resnet50",
        318,
        {"fc.bias": "head"},
    ),
    "MoCo v2": (
        moco_v2,
        "MoCo v2 training file",
        "moco_v2",
        "resnet50",
        318,
        {
            "module.encoder_q.fc.0.weight": "head",
            "module.encoder_k.layer1.0.conv1.weight": "momentum encoder",
            "module.encoder_k.fc.0.weight": "momentum encoder",
            "module.queue": "queue",
            "optimizer": "state of the optimizer",
            "epoch": "counters",
        },
    ),
    "MoCo v3 ResNet50": (
        lambda: moco_v3(resnet50(), 2048, "fc"),
        "MoCo v3 training file",
        "moco_v3",
        "resnet50",
        318,
        {
            "module.base_encoder.fc.4.running_var": "head",
            "module.momentum_encoder.conv1.weight": "momentum encoder",
            "module.predictor.1.bias": "prediction head",
            "scaler": "mixed precision",
        },
    ),
    "MoCo v3 ViT-B": (
        lambda: moco_v3(vit(), 768, "head"),
        "MoCo v3 training file",
        "moco_v3",
        "vit_base",
        150,
        {"module.base_encoder.head.0.weight": "head", "module.momentum_encoder.cls_token": "momentum encoder"},
    ),
    "MoCo v3 ViT-S": (
        lambda: moco_v3(vit("small"), 384, "head"),
        "MoCo v3 training file",
        "moco_v3",
        "vit_small_moco_v3",
        150,
        {"module.base_encoder.head.0.weight": "head", "module.momentum_encoder.cls_token": "momentum encoder"},
    ),
    "Barlow Twins full": (
        barlow_twins,
        "Barlow Twins training file",
        "barlow_twins",
        "resnet50",
        318,
        {"module.projector.6.weight": "projection head", "module.bn.running_mean": "Barlow Twins"},
    ),
    "RadNet checkpoint_N": (
        radnet_simclr,
        "RadNet SimCLR checkpoint (checkpoint_N.tar)",
        "simclr",
        "resnet50",
        318,
        {"projector.4.weight": "projection head", "ntxent.mask": "loss"},
    ),
    "RadNet classification": (
        lambda: starting("encoder.", resnet50()) | tensors({"head.weight": (4, 2048)}),
        "RadNet fine-tuned classification (finetuned_model.tar)",
        "",
        "resnet50",
        318,
        {"head.weight": "head"},
    ),
    "RadNet segmentation": (
        radnet_segmentation,
        "RadNet fine-tuned segmentation (finetuned_model.tar)",
        "",
        "resnet50",
        318,
        {
            "unet.backbone.fc.weight": "head",
            "unet.upsample_blocks.0.conv1.weight": "decoder",
            "unet.final_conv.bias": "output layer",
            "loss_criterion.XE.weight": "loss",
        },
    ),
    "SSL4GIE classification": (
        lambda: ssl4gie(resnet50() | lin_head(2048)),
        f"{SSL4GIE} classification",
        "",
        "resnet50",
        318,
        {"lin_head.weight": "head for classes", "optimizer_state_dict": "optimizer", "val_perf": "counters"},
    ),
    "SSL4GIE classification of MAE": (
        lambda: ssl4gie(vit() | lin_head(768) | tensors({"decoder_pos_embed": (1, 197, 512)})),
        f"{SSL4GIE} classification",
        "",
        "vit_base",
        150,
        {"decoder_pos_embed": "decoder", "lin_head.bias": "head"},
    ),
    "SSL4GIE smp": (
        lambda: ssl4gie(names_of(lambda: smp.DeepLabV3Plus("resnet50", encoder_weights=None))),
        f"{SSL4GIE} segmentation (smp)",
        "",
        "resnet50",
        318,
        {"segmentation_head.0.weight": "output layer", "decoder.aspp.0.convs.0.0.weight": "decoder"},
    ),
    "SSL4GIE detector": (
        lambda: ssl4gie(detector("resnet18")),
        f"{SSL4GIE} detector",
        "",
        "resnet18",
        120,
        {"rpn.head.cls_logits.weight": "region proposals", "backbone.fpn.inner_blocks.0.0.weight": "feature pyramid"},
    ),
    "SSL4GIE dense ViT": (
        lambda: ssl4gie(vit() | tensors({"decoder.head.0.weight": (1, 1)})),
        f"{SSL4GIE} dense ViT",
        "",
        "vit_base",
        150,
        {"decoder.head.0.weight": "decoder"},
    ),
    "SSL4GIE depth ResNet": (
        lambda: ssl4gie(
            resnet50()
            | tensors({"decoder_levels.0.chan_reduce.0.weight": (1024, 2048, 1, 1), "output_conv.5.bias": (1,)})
        ),
        f"{SSL4GIE} depth ResNet",
        "",
        "resnet50",
        318,
        {"decoder_levels.0.chan_reduce.0.weight": "decoder", "output_conv.5.bias": "output layer"},
    ),
    "DINO ViT-S": (
        lambda: dino(vit("small"), 384),
        "DINO training file",
        "dino",
        "vit_small",
        150,
        {"head.mlp.0.weight": "head", "student": "student; its moving average", "dino_loss": "centre"},
    ),
    "DINO ResNet50": (
        lambda: dino(resnet50(), 2048),
        "DINO training file",
        "dino",
        "resnet50",
        318,
        {"head.last_layer.weight_v": "head"},
    ),
    "DINO student alone": (
        lambda: {"student": starting("module.backbone.", vit("small"))},
        "DINO student alone",
        "dino",
        "vit_small",
        150,
        {},
    ),
    "DINOv2 ViT-S": (
        lambda: dinov2("small"),
        "DINOv2 encoder",
        "dinov2",
        "vit_small_dinov2",
        174,
        {"mask_token": "hidden"},
    ),
    "DINOv2 ViT-B with registers": (
        lambda: dinov2("base", True),
        "DINOv2 encoder",
        "dinov2",
        "vit_base_dinov2_reg",
        175,
        {"mask_token": "hidden patches"},
    ),
    "GastroNet dinov2.pth": (
        lambda: dinov2_teacher(dinov2("base", True), 768),
        "DINOv2 training file",
        "dinov2",
        "vit_base_dinov2_reg",
        175,
        {"backbone.mask_token": "hidden", "dino_head.mlp.0.weight": "DINO", "ibot_head.mlp.0.weight": "iBOT"},
    ),
    "DINOv2 with grouped blocks": (
        lambda: dinov2_teacher(chunked(dinov2("small")), 384),
        "DINOv2 training file",
        "dinov2",
        "vit_small_dinov2",
        174,
        {},
    ),
    "MAE full": (
        lambda: mae(vit()),
        "MAE file with decoder",
        "mae",
        "vit_base",
        150,
        {"decoder_blocks.7.norm1.bias": "decoder", "mask_token": "hidden patches", "args": "settings"},
    ),
    "MAE encoder": (lambda: {"model": vit()}, VIT, "", "vit_base", 150, {}),
    "Lightning": (
        lambda: lightning(starting("model.", resnet50()) | tensors({"criterion.weight": (3,)})),
        "Lightning checkpoint",
        "",
        "resnet50",
        318,
        {"criterion.weight": "loss", "optimizer_states": "optimizer", "loops": "counters"},
    ),
    "Lightning of lightly's MoCo": (
        lightly_moco,
        "Lightning checkpoint",
        "",
        "resnet18",
        120,
        {"backbone_momentum.0.weight": "momentum", "projection_head_momentum.layers.0.weight": "momentum"},
    ),
    "Lightning of lightly's DINO": (
        lightly_dino,
        "Lightning checkpoint of a lightly DINO",
        "dino",
        "vit_small",
        150,
        {"student_backbone.cls_token": "student"},
    ),
    "FlexibleUNet": (
        lambda: names_of(lambda: nets.FlexibleUNet(3, 2, "resnet50")),
        FLEXIBLE,
        "",
        "resnet50",
        318,
        {"segmentation_head.0.weight": "output layer"},
    ),
    "FlexibleUNet of ours over a ViT": (
        lambda: names_of(lambda: build_dense("vit_small", "unet")),
        f"{FLEXIBLE} of ours",
        "",
        "vit_small",
        150,
        {"encoder.pyramid.0.0.weight": ""},
    ),
    "DPT of ours": (
        lambda: names_of(lambda: build_dense("vit_small", "dpt")),
        f"{FLEXIBLE} of ours",
        "",
        "vit_small",
        150,
        {},
    ),
    "detector of ours": (
        lambda: detector("vit_tiny"),
        "detector of torchvision",
        "",
        "vit_tiny",
        150,
        {"backbone.fpn.scales.0.0.weight": "feature pyramid", "roi_heads.box_predictor.cls_score.bias": "detector"},
    ),
    "MONAI ResNet": (
        lambda: names_of(lambda: build_classifier("resnet50")),
        RESNET,
        "",
        "resnet50",
        318,
        {"fc.weight": "head"},
    ),
    "MONAI ViT": (
        monai_vit,
        "MONAI ViT",
        "",
        "vit_small",
        150,
        {"blocks.3.norm_cross_attn.bias": "does not use", "classification_head.weight": ""},
    ),
    "MONAI MAE": (
        monai_mae,
        "MONAI MaskedAutoEncoderViT",
        "mae",
        "vit_small",
        150,
        {"decoder_pos_embedding": "decoder", "mask_tokens": "hidden"},
    ),
    "own SimCLR checkpoint": (
        lambda: own_checkpoint(("encoder.",), "SimCLR"),
        "pretraining checkpoint of ssl-transfer",
        "SimCLR",
        "vit_small",
        150,
        {"projection_head.layers.0.weight": "projection head", "handlers": "counters", "random": "random states"},
    ),
    "own DINO checkpoint": (
        lambda: own_checkpoint(("encoder.", "teacher_encoder."), "DINO"),
        "pretraining checkpoint of ssl-transfer",
        "DINO",
        "vit_small",
        150,
        {"encoder.cls_token": "student"},
    ),
    "own MoCo checkpoint": (
        lambda: own_checkpoint(("encoder.", "momentum_encoder."), "MoCoV3"),
        "pretraining checkpoint of ssl-transfer",
        "MoCoV3",
        "vit_small",
        150,
        {"momentum_encoder.cls_token": "momentum"},
    ),
}


def everything_in(content: Mapping[str, Any], found: FoundEncoder) -> set[str]:
    inside: Mapping[str, Any] = content
    for part in found.holder.split(".") if found.holder else []:
        inside = inside[part]
    return set(inside)


@pytest.mark.parametrize("case", CASES)
def test_the_source_is_recognised_and_nothing_is_lost(case: str) -> None:
    build, source, method, architecture, count, dropped = CASES[case]
    content = build()
    found = found_in(content)
    assert (found.source, found.method, found.architecture, found.in_channels) == (source, method, architecture, 3)
    assert len(found.state) == len(found.names) == count
    for name, why in dropped.items():
        if why:
            assert why in found.dropped[name]
    unused = {name for name in found.dropped if name in everything_in(content, found)}
    assert set(found.names.values()) | unused == everything_in(content, found) | (
        {"cls_token"} & set(found.names.values())
    )
    assert not set(found.names.values()) & set(found.dropped)


@pytest.mark.parametrize(
    "start", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module.", "net.module.", "a.b._orig_mod."]
)
def test_wrappers_in_any_order(start: str) -> None:
    found = found_in({"state_dict": starting(start, resnet50(fc=True))})
    assert (found.architecture, len(found.state), found.start) == ("resnet50", 318, start)
    moco = {"state_dict": starting("_orig_mod.", moco_v2()["state_dict"])}
    assert found_in(moco).source == "MoCo v2 training file"


def test_names_are_cut_at_their_start_only() -> None:
    odd = {"layer1.0.backbone.conv1.weight": (1,), "layer1.module.bias": (1,), "layer4.encoder.bias": (1,)}
    for start in ("", "backbone.", "module.encoder."):
        found = found_in(starting(start, resnet50() | tensors(odd)))
        assert set(odd) < set(found.state)  # on the encoder's level, unknown: kept, so that loading refuses them


def test_registers_and_chunks_are_told() -> None:
    assert "class token" in " ".join(found_in(dinov2("small", True)).notes)
    found = found_in(dinov2_teacher(chunked(dinov2("base", True)), 768))
    assert len(found.notes) == 2
    assert found.names["blocks.4.norm1.weight"] == "backbone.blocks.1.4.norm1.weight"
    assert found.names["reg_token"] == "backbone.register_tokens"
    assert (found.patch_size, found.registers) == (14, 4)


def cifar_resnet() -> State:
    """Names and shapes of ResNet-20 for CIFAR (16, 32 and 64 channels), behind `module.`."""
    state = tensors({"conv1.weight": (16, 3, 3, 3), "linear.weight": (10, 64), "linear.bias": (10,)}) | norm("bn1", 16)
    for stage, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
        for block in range(3):
            start = f"layer{stage}.{block}."
            shapes = {
                "conv1.weight": (width, before if block == 0 else width, 3, 3),
                "conv2.weight": (width, width, 3, 3),
            }
            state |= starting(start, tensors(shapes) | norm("bn1", width) | norm("bn2", width))
    return starting("module.", state)


def ssl4gie_vit_detector() -> dict[str, Any]:
    body = {name: tensor for name, tensor in vit().items() if name != "cls_token"}
    pyramid = tensors({"fpn.fpn1.1.weight": (256, 768, 1, 1), "fpn.fpn4.0.weight": (768, 768, 2, 2)})
    return ssl4gie(starting("backbone.", body | pyramid) | tensors({"rpn.head.cls_logits.bias": (3,)}))


def giant() -> State:
    return names_of(lambda: timm.create_model("vit_giant_patch14_dinov2", depth=2, num_classes=0)) | tensors(
        {"blocks.0.mlp.w12.weight": (8192, 1536), "blocks.0.mlp.w3.weight": (1536, 4096), "mask_token": (1, 1536)}
    )


REFUSED: dict[str, tuple[Callable[[], Mapping[str, Any]], str]] = {
    "CIFAR": (
        lambda: {"state_dict": cifar_resnet(), "best_prec1": 91.8},
        r"module\.conv1\.weight.* CIFAR ResNet \(stem of 3 x 3 pixels with 16 channels, stages of 16, 32, 64, `linear",
    ),
    "SSL4GIE's ViT detector": (ssl4gie_vit_detector, r"SSL4GIE's ViT detector, whose class token was deleted"),
    "DINOv2 giant": (giant, r"giant \(SwiGLU feed-forward\) .*its architecture is not offered"),
    "DINOv2 large": (
        lambda: names_of(lambda: timm.create_model("vit_large_patch14_dinov2", num_classes=0)),
        r"ViT-L of width 1024, 24 blocks and patches of 14 pixels, LayerScale",
    ),
    "ViT-B/32": (lambda: names_of(lambda: timm.create_model("vit_base_patch32_224")), r"patches of 32 pixels"),
    "ResNet-34": (lambda: names_of(torchvision.models.resnet34), "this is a ResNet-34"),
    "ResNet-101": (lambda: names_of(torchvision.models.resnet101), "this is a ResNet-101"),
    "wide ResNet": (lambda: names_of(torchvision.models.wide_resnet50_2), "a wide ResNet .*128, 128, 3, 3"),
    "ResNeXt": (lambda: names_of(torchvision.models.resnext50_32x4d), "a ResNeXt"),
    "ResNet-D": (lambda: names_of(lambda: timm.create_model("resnet50d")), "ResNet-D"),
    "Swin": (lambda: names_of(torchvision.models.swin_t), "."),
    "timm's Swin": (lambda: names_of(lambda: timm.create_model("swin_tiny_patch4_window7_224")), "a Swin"),
    "ConvNeXt": (lambda: names_of(lambda: timm.create_model("convnext_tiny")), "a ConvNeXt"),
    "EfficientNet": (lambda: names_of(torchvision.models.efficientnet_b0), "an EfficientNet"),
    "VGG": (lambda: names_of(torchvision.models.vgg16), "a VGG"),
    "DenseNet": (lambda: names_of(torchvision.models.densenet121), "a DenseNet"),
    "distilled DeiT": (
        lambda: {"model": names_of(lambda: timm.create_model("deit_base_distilled_patch16_224"))},
        r"a distilled DeiT \(it has dist_token\)",
    ),
    "BEiT": (lambda: {"model": names_of(lambda: timm.create_model("beit_base_patch16_224"))}, "a BEiT"),
    "timm's CLIP": (
        lambda: names_of(lambda: timm.create_model("vit_base_patch16_clip_224")),
        "a norm before its first",
    ),
    "OpenAI's CLIP": (
        lambda: tensors(
            {"visual.transformer.resblocks.0.ln_1.weight": (768,), "visual.conv1.weight": (768, 3, 16, 16)}
        ),
        "a CLIP ViT",
    ),
    "SAM": (
        lambda: starting("image_encoder.", names_of(lambda: timm.create_model("samvit_base_patch16", num_classes=0))),
        "SAM's image encoder",
    ),
    "MONAI ResNet with shortcut biases": (
        lambda: names_of(lambda: nets.resnet50(spatial_dims=2, n_input_channels=3)),
        "biases in its shortcuts .*bias_downsample=False",
    ),
    "3-D ResNet": (lambda: names_of(lambda: nets.resnet50(spatial_dims=3, bias_downsample=False)), "3-D ResNet"),
    "half a ResNet's names": (
        lambda: {name: each for name, each in resnet50().items() if name != "conv1.weight"},
        "closest is resnet50, of whose 318 tensors it has 317 by name and 317 by shape",
    ),
    "MAE fine-tuned": (
        lambda: {"model": names_of(lambda: timm.create_model("vit_base_patch16_224", global_pool="avg"))},
        r"a head on the average of its tokens, .*fc_norm\.weight.*behind the average",
    ),
    "normalised queries": (lambda: vit("tiny", qk_norm=True), "a ViT that normalises queries and keys"),
    "rotary positions": (lambda: vit("tiny") | tensors({"rope.freqs": (16,)}), "a ViT with rotary positions"),
    "LoRA of peft": (
        lambda: vit("tiny") | tensors({"blocks.0.attn.qkv.lora_A.default.weight": (4, 192)}),
        "low-rank adapters .*merge",
    ),
    "LoRA of ours": (
        lambda: vit("tiny") | tensors({"blocks.0.attn.qkv.lora.down.weight": (4, 192)}),
        "low-rank adapters .*merge",
    ),
    "nothing": (lambda: {"epoch": 3, "state_dict": {}}, r"is a training checkpoint \(epoch, state_dict\)"),
    "two": (
        lambda: starting("left.", resnet50()) | starting("right.", resnet50()),
        r"holds 2 encoders \(their names begin with left\., right\.\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_encoder_of_ours_is_refused_with_the_reason(case: str) -> None:
    build, reason = REFUSED[case]
    with pytest.raises(WeightsError, match=r"some\.pth .*" + reason):
        found_in(build())


def test_student_goes_unused_though_it_is_first() -> None:
    content = dino(vit("small"), 384)
    content["teacher"]["backbone.cls_token"] = torch.ones(1, 1, 384)
    assert float(found_in(content).state["cls_token"].sum()) == 384
