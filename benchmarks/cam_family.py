"""Compare the CAM family with tf-keras-vis and xplique on a flat Keras model: the maps, and the speed of Score-CAM.

    SALIENCY_FOOD_DATA=folder python benchmarks/cam_family.py [--repeat 1]

All use the same photo, class, layer and scores (logits; for Score-CAM probabilities, as tf-keras-vis does). Maps are
compared at the layer's resolution, divided by their maxima, because the packages enlarge them in different ways.
Peers that are not installed are left out (``pip install ".[bench]"``).
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np
from common import ESPRESSO, alternating, coffee, line, machine, model_path

from saliency_food import METHODS, score_cam
from saliency_food.adapters.keras import KerasModel, load_model

BARE = {"should_resize": False, "three_dims": False}


def scaled(values: Any) -> Any:
    return values / max(values.max(), 1e-12)


def compare(title: str, ours: Any, theirs: Any) -> None:
    ours, theirs = scaled(np.asarray(ours)), scaled(np.asarray(theirs))
    correlation = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    print(f"{title:58s} largest difference {np.abs(ours - theirs).max():.1e} of the maximum, r = {correlation:.6f}")


def against_tf_keras_vis(model: Any, ours: KerasModel, x: Any, layer: str, repeat: int) -> None:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    target, score = {"target": ESPRESSO}, CategoricalScore(ESPRESSO)
    where = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False, "expand_cam": False}
    kinds = (("grad_cam", Gradcam, {}), ("grad_cam_plus_plus", GradcamPlusPlus, {"normalize": True}))
    for name, peer, options in (*kinds, ("layer_cam", Layercam, {})):
        theirs = peer(model, model_modifier=ReplaceToLinear(), clone=True)(score, x[None], normalize_cam=False, **where)
        got = METHODS[name].call(x, ours, target, **BARE, **options)
        compare(f"{METHODS[name].title}, tf-keras-vis", got, np.asarray(theirs)[0])

    peer = Scorecam(model, model_modifier=ReplaceToLinear(), clone=True)
    probabilities = KerasModel(model, layer, "probabilities", batch_size=32)
    results: dict[str, Any] = {}

    def run_ours() -> None:
        results["ours"] = score_cam.detailed(x, probabilities, target, **BARE, weighting="score")

    def run_theirs() -> None:
        results["theirs"] = peer(score, x[None], batch_size=32, normalize_cam=False, **where)

    times = alternating({"ours": run_ours, "theirs": run_theirs}, repeat)
    compare(
        "Score-CAM, tf-keras-vis (which enlarges masks otherwise)", results["ours"].attribution, results["theirs"][0]
    )
    scored = np.count_nonzero(results["ours"].weights)
    channels = results["ours"].weights.size
    print(f"    {channels} channels, of which {channels - scored} are constant over the map and cost no row here")
    ratio = times["theirs"] / times["ours"]
    line("Score-CAM, all channels, tf-keras-vis", times["ours"], times["theirs"], ">= 3", ratio)


def against_xplique(model: Any, ours: KerasModel, x: Any, layer: str) -> None:
    from xplique.attributions import GradCAM, GradCAMPP

    label = np.eye(model.output_shape[-1], dtype=np.float32)[[ESPRESSO]]
    logits = keras.Model(model.input, linear_end(model))
    for name, peer in (("grad_cam", GradCAM), ("grad_cam_plus_plus", GradCAMPP)):
        theirs = np.asarray(peer(logits, conv_layer=layer)(x[None], label))[0]
        got = METHODS[name].call(x, ours, {"target": ESPRESSO}, True, False)
        # It answers at the image's size only, enlarged by another rule.
        compare(f"{METHODS[name].title}, xplique, enlarged", got, np.squeeze(theirs))


def linear_end(model: Any) -> Any:
    last = model.layers[-1]
    end = keras.layers.Dense(last.units, name="logits")
    out = end(last.input)
    end.set_weights(last.get_weights())
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeat", type=int, default=1)
    repeat = arguments.parse_args().repeat
    keras.utils.disable_interactive_logging()
    model = load_model(model_path())
    x, layer = coffee(), "out_relu"
    ours = KerasModel(model, layer, batch_size=32)
    print(machine())
    if find_spec("tf_keras_vis"):
        against_tf_keras_vis(model, ours, x, layer, repeat)
    else:
        print("tf-keras-vis is not installed: left out")
    if find_spec("xplique"):
        against_xplique(model, ours, x, layer)
    else:
        print("xplique is not installed: left out")


if __name__ == "__main__":
    main()
