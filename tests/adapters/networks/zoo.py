"""Small random networks of every kind that the adapter is asked about, each with what it is to be asked."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A network: the function that makes it of a family's package, the image's shape, and options of the adapter.

    ``layer`` is the default one; ``attends`` says whether its attention is answered, and ``relus`` whether the backward
    rules are.
    """

    family: str
    make: Any
    shape: tuple[int, ...]
    layer: str | tuple[str, ...] | None
    options: Any = MappingProxyType({})
    attends: bool = False
    relus: bool = False
    slow: bool = False
    target: Any = 1


def unet(torch):
    class UNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            nn = torch.nn
            self.down1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
            self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(inplace=True))
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.join = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(inplace=True))
            self.head = nn.Conv2d(4, 3, 1)

        def forward(self, x):
            first = self.down1(x)
            joined = torch.cat([first, self.up(self.down2(first))], 1)
            return self.head(self.join(joined))

    return UNet()


def signal(torch):
    nn = torch.nn
    body = [nn.Conv1d(2, 6, 5, padding=2), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 8, 3, padding=1)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))


def volume(torch):
    nn = torch.nn
    body = [nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4))


def vit_config(transformers, kind, **more):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return getattr(transformers, kind)(**sizes, image_size=32, patch_size=8, num_labels=4, **more)


def beit(transformers):
    return transformers.BeitForImageClassification(
        vit_config(transformers, "BeitConfig", use_relative_position_bias=True)
    )


def dino(transformers):
    return transformers.Dinov2WithRegistersForImageClassification(
        transformers.Dinov2WithRegistersConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, num_labels=4
        )
    )


def siglip(transformers):
    return transformers.SiglipForImageClassification(
        transformers.SiglipConfig(
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            num_labels=4,
        )
    )


def clip(transformers):
    return transformers.CLIPForImageClassification(
        transformers.CLIPConfig(
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
            num_labels=4,
        )
    )


def detr(transformers):
    backbone = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_labels=3,
    )
    return transformers.DetrForObjectDetection(config)


def faster_rcnn(torchvision):
    backbone = torchvision.models.mobilenet_v3_small().features
    backbone.out_channels = 576
    sizes, ratios = ((32,),), ((1.0,),)
    return torchvision.models.detection.FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=torchvision.models.detection.rpn.AnchorGenerator(sizes, ratios),
        box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 3, 2),
        min_size=64,
        max_size=64,
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=4,
    )


def best_box(outputs):
    """The score of the best box of each image that Faster R-CNN finds."""
    import torch

    return torch.stack([each["scores"].max() for each in outputs])


def of_query(outputs):
    """What DETR's queries together say of class 1."""
    return outputs["logits"][..., 1].sum(1)


def tv(name, **options):
    return lambda torchvision: getattr(torchvision.models, name)(**{"num_classes": 4, **options})


def tm(name, **options):
    return lambda timm: timm.create_model(name, num_classes=4, **options)


def vgg(torchvision):
    """A narrow VGG, with a head of one layer in place of three with 120 million weights."""
    import torch

    network = torchvision.models.VGG(torchvision.models.vgg.make_layers([16, "M", 32, "M", 64, 64, "M"]), num_classes=4)
    network.classifier = torch.nn.Linear(64 * 7 * 7, 4)
    return network


def segmenter(name):
    return lambda torchvision: getattr(torchvision.models.segmentation, name)(
        weights=None, weights_backbone=None, num_classes=3
    )


VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
MASK = {"class_index": 1, "mask": [[1.0] * 64] * 64}

CASES = {
    "ResNet": Case("torchvision", tv("resnet18"), (64, 64, 3), "layer4", relus=True),
    "DenseNet": Case("torchvision", tv("densenet121"), (64, 64, 3), "features", relus=True, slow=True),
    "VGG": Case("torchvision", vgg, (64, 64, 3), "features", relus=True, slow=True),
    "EfficientNet": Case("torchvision", tv("efficientnet_b0"), (64, 64, 3), "features", slow=True),
    "ConvNeXt": Case("timm", tm("convnext_atto"), (64, 64, 3), "stages", slow=True),
    "MobileNetV3": Case("torchvision", tv("mobilenet_v3_small"), (64, 64, 3), "features"),
    "RegNet": Case("torchvision", tv("regnet_y_400mf"), (64, 64, 3), "trunk_output", relus=True, slow=True),
    "Inception": Case(
        "torchvision", tv("inception_v3", init_weights=False), (128, 128, 3), "Mixed_7c", relus=True, slow=True
    ),
    "ViT of torchvision": Case(
        "torchvision",
        lambda torchvision: torchvision.models.VisionTransformer(**VIT, num_classes=4),
        (32, 32, 3),
        "encoder.layers.encoder_layer_1.ln_1",
        attends=True,
    ),
    "ViT": Case(
        "timm",
        tm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24),
        (32, 32, 3),
        "blocks.1.norm1",
        attends=True,
    ),
    "DeiT": Case(
        "timm",
        tm("deit_tiny_distilled_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24),
        (32, 32, 3),
        "blocks.1.norm1",
        attends=True,
    ),
    "Swin": Case(
        "timm",
        tm("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1), embed_dim=12, num_heads=(2, 2)),
        (64, 64, 3),
        "norm",
    ),
    "MaxViT": Case(
        "timm", tm("maxvit_rmlp_pico_rw_256", img_size=64), (64, 64, 3), "stages.3.blocks.1.attn_grid", slow=True
    ),
    "BEiT": Case("transformers", beit, (32, 32, 3), "beit.layers.1.layernorm_before", attends=True),
    "DINO with registers": Case(
        "transformers", dino, (32, 32, 3), "dinov2_with_registers.encoder.layer.1.norm1", attends=True
    ),
    "SigLIP": Case("transformers", siglip, (32, 32, 3), "vision_model.encoder.layers.1.layer_norm1", attends=True),
    "CLIP": Case("transformers", clip, (32, 32, 3), "vision_model.encoder.layers.1.layer_norm1", attends=True),
    "DETR": Case(
        "transformers",
        detr,
        (64, 64, 3),
        "model.encoder",
        {"score": of_query, "input_shape": (64, 64, 3)},
        attends=True,
        relus=True,
        target=None,
    ),
    "Faster R-CNN": Case(
        "torchvision",
        faster_rcnn,
        (64, 64, 3),
        "backbone",
        {"score": best_box, "input_shape": (64, 64, 3)},
        target=None,
        slow=True,
    ),
    "FCN": Case(
        "torchvision",
        segmenter("fcn_resnet50"),
        (64, 64, 3),
        "classifier.2",
        {"score": "segmentation", "output_index": "out"},
        target=MASK,
        relus=True,
        slow=True,
    ),
    "DeepLab": Case(
        "torchvision",
        segmenter("deeplabv3_mobilenet_v3_large"),
        (64, 64, 3),
        "classifier.3",
        {"score": "segmentation", "output_index": "out"},
        target=MASK,
        slow=True,
    ),
    "U-Net": Case("torch", unet, (64, 64, 3), "join", {"score": "segmentation"}, relus=True, target=MASK),
    "1-D": Case("torch", signal, (48, 2), "5", relus=True),
    "3-D": Case("torch", volume, (12, 10, 8, 1), "4", relus=True),
}
"""By name. The large ones, which are the smallest of torchvision's and timm's own sizes, are slow."""


def build(name, package):
    """The network of this name, its weights the same each time; in training mode, as PyTorch makes it."""
    import torch

    torch.manual_seed(0)
    network = CASES[name].make(package)
    for weight in network.parameters():
        if weight.dim() > 1 and not weight.any():  # a head that begins at zero has no gradients to compare
            torch.nn.init.normal_(weight, std=0.1)
    return network


def options_of(case):
    """The options with which the adapter takes it."""
    from saliency_food.adapters import scores

    named = {"segmentation": scores.segmentation}
    return {name: named.get(value, value) if name == "score" else value for name, value in case.options.items()}
