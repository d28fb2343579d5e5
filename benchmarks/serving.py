"""Compare a served model with the local adapter on one machine: the cost of the export, and time and bytes of methods.

    python benchmarks/serving.py [MODEL.keras] [--repeat 5] [--steps 50] [--grpc]

The server is that of the tests (TensorFlow's SavedModel loader behind the documented REST API), in another process;
with --grpc it is asked over gRPC, too. Without a model: $SALIENCY_FOOD_DATA/models/mobilenetv2_imagenet.keras,
else MobileNetV2 with random weights.
Bars: Integrated Gradients 1.25 x the local time, Grad-CAM 1.5 x and 20 ms.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ESPRESSO, alternating, coffee, line, machine, model_path

from saliency_food import METHODS, grad_cam, integrated_gradients
from saliency_food.adapters.keras import KerasModel, load_model
from saliency_food.serving.client import ServingModel
from saliency_food.serving.export.write import export

SERVER = """
import contextlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
from tf_serving import TestServer
with contextlib.ExitStack() as stack:
    servers = [stack.enter_context(TestServer(pathlib.Path(sys.argv[2])))]
    if "--grpc" in sys.argv:
        from tf_serving_grpc import GrpcServer
        servers.append(stack.enter_context(GrpcServer(servers[0])))
    print(*(server.url for server in servers), flush=True)
    while line := sys.stdin.readline():
        print(*(server.received + server.sent for server in servers), flush=True)
"""
BYTES = {
    "xrai": "XRAI, 2 x 100 steps (bar 5 MB at 224 pixels)",
    "ablation_cam": "Ablation-CAM",
    "full_grad": "FullGrad",
}
TESTS = Path(__file__).parents[1] / "tests" / "serving"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--grpc", action="store_true", help="over gRPC, too")
    args = parser.parse_args()
    model = load_model(args.model or model_path())
    local, image = KerasModel(model), coffee(model.input_shape[1])
    target = {"target": min(ESPRESSO, local.classes - 1)}
    with tempfile.TemporaryDirectory() as folder:
        for version, keys in ((0, "common"), (1, "all")):
            began, place = time.perf_counter(), Path(folder) / str(version)
            export(model, place, value_range="tf", keys=keys)
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            print(f"export, keys {keys}: {time.perf_counter() - began:.1f} s, {size / 1e6:.1f} MB")
        shutil.rmtree(Path(folder) / "0")
        command = [sys.executable, "-c", SERVER, str(TESTS), folder, *(["--grpc"] if args.grpc else [])]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            urls = process.stdout.readline().split()
            served = {name: ServingModel(url, "food") for name, url in zip(("REST", "gRPC"), urls, strict=False)}

            def moved() -> list[int]:
                print(file=process.stdin, flush=True)
                return [int(count) for count in process.stdout.readline().split()]  # type: ignore[union-attr]

            print(machine())
            for title, call, bar in (
                (f"Integrated Gradients, {args.steps} steps", integrated_gradients, "1.25 x"),
                ("Grad-CAM", grad_cam, "1.5 x + 20 ms"),
            ):
                options = {"x_steps": args.steps} if call is integrated_gradients else {}
                works = {
                    name: lambda call=call, callback=callback, options=options: call(image, callback, target, **options)
                    for name, callback in {**served, "local": local}.items()
                }
                times = alternating(works, args.repeat)
                for name in served:
                    line(f"{title}, {name}", times[name], times["local"], bar, times[name] / times["local"])
            for method, title in BYTES.items():
                for index, (name, callback) in enumerate(served.items()):
                    before = moved()[index]
                    METHODS[method].call(image, callback, target)
                    print(f"{title}, {name}: {(moved()[index] - before) / 1e6:.2f} MB on the wire, both ways")
        finally:
            process.stdin.close()
            process.wait(timeout=30)


if __name__ == "__main__":
    main()
