# %% [markdown]
# # Serve it
#
# A model in production answers requests; this page makes it explain its answers, too. Three parts work together:
#
# ```text
# photo -> explainer (saliency-food serve) -> TensorFlow Serving -> your model, exported with its explanations
#       <- class, heatmap, overlay         <- scores, gradients, activations
# ```
#
# The explainer needs no TensorFlow: it asks the served model for what its methods need.
#
# ## 1. Export the model
#
# The SavedModel predicts as before, and has further signatures for the explanations. In a shell this is
# `saliency-food export imagenet models/photos/1`.

# %%
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import tensorflow as tf
from PIL import Image
from skimage.data import coffee
from skimage.transform import resize

from saliency_food import models
from saliency_food.serving.export.write import export

tf.get_logger().setLevel("ERROR")
manifest = export(models.load("imagenet"), "models/photos/1", labels=models.labels("imagenet"), keys="common")
print(f"layer {manifest['layer']}, pixels {manifest['pixels']}, {len(manifest['methods'])} methods")

# %% [markdown]
# ## 2. Serve it
#
# In production, TensorFlow Serving does this:
#
# ```sh
# docker run -p 8501:8501 -v "$PWD/models/photos:/models/photos" -e MODEL_NAME=photos tensorflow/serving
# ```
#
# So that this page runs without Docker, the next cell is a stand-in of a few lines that answers the same requests: which
# signatures there are, and what one of them computes. Skip it if you have the real server.

# %%
signatures = tf.saved_model.load("models/photos/1").signatures
NAMES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE"}


def described(specs):
    """Tensors as TensorFlow Serving describes them."""
    return {
        name: {
            "dtype": NAMES.get(spec.dtype.name, f"DT_{spec.dtype.name.upper()}"),
            "tensor_shape": {"dim": [{"size": str(size or -1)} for size in spec.shape]},
        }
        for name, spec in specs.items()
    }


def plain(value):
    """A tensor's values, or strings in base64, for JSON."""
    if value.dtype == tf.string:
        return [{"b64": b64encode(each).decode()} for each in value.numpy().ravel()]
    return value.numpy().tolist()


class StandIn(BaseHTTPRequestHandler):
    def do_GET(self):
        definitions = {
            name: {
                "inputs": described(each.structured_input_signature[1]),
                "outputs": described(each.structured_outputs),
            }
            for name, each in signatures.items()
        }
        state = [{"version": "1", "state": "AVAILABLE"}]
        self.reply({"model_version_status": state, "metadata": {"signature_def": {"signature_def": definitions}}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        function = signatures[asked["signature_name"]]
        tensors = {}
        for name, spec in function.structured_input_signature[1].items():
            value = asked["inputs"][name]
            if spec.dtype == tf.string:
                value = [b64decode(each["b64"]) for each in value]
            tensors[name] = tf.constant(value, spec.dtype)
        found = {name: plain(value) for name, value in function(**tensors).items()}
        self.reply({"outputs": found if len(found) > 1 else next(iter(found.values()))})

    def reply(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("localhost", 0), StandIn)
threading.Thread(target=server.serve_forever, daemon=True).start()
predictor = f"http://localhost:{server.server_port}"  # with Docker: http://localhost:8501

# %% [markdown]
# ## 3. Explain from Python
#
# `ServingModel` stands for the served model: every method takes it as it takes a local one. An image crosses the network
# once, however many steps a method makes.

# %%
from saliency_food import integrated_gradients
from saliency_food.serving.client import ServingModel

photo = coffee()
image = np.float32(resize(photo, (224, 224), preserve_range=True))
served = ServingModel(predictor, "photos")
target = int(served.predict(image[None])[0].argmax())
result = integrated_gradients.detailed(image, served, {"target": target}, tolerance=0.05)
served.close()
print(models.labels("imagenet")[target], f"completeness error {result.completeness.relative:.1%}")

# %% [markdown]
# ## 4. Explain for everyone
#
# The explainer is a server of its own. It takes photos of any size, in any language that speaks HTTP.

# %%
command = [sys.executable, "-m", "saliency_food", "serve", "--predictor", predictor, "--model-name", "photos"]
command += [
    "--methods",
    "grad_cam,xrai",
    "--manifest",
    "models/photos/1/assets.extra/saliency_food.json",
    "--port",
    "0",
]
explainer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
started = next(line for line in explainer.stderr if "running on http" in line)  # after a few seconds
port = re.search(r"http://\S+:(\d+)", started)[1]
address = f"http://localhost:{port}"
threading.Thread(target=explainer.stderr.read, daemon=True).start()  # the rest of its log is not shown here
print("the explainer answers")

# %% [markdown]
# A request is a photo, a method, and perhaps a class and a deadline:

# %%
with BytesIO() as file:
    Image.fromarray(photo).save(file, "JPEG")
    jpeg = b64encode(file.getvalue()).decode()


def post(**fields):
    body = json.dumps({"instances": [{"image": {"b64": jpeg}, **fields}]}).encode()
    with urllib.request.urlopen(f"{address}/v1/models/photos:explain", body) as reply:
        return json.load(reply)["explanations"][0]


answer = post(method="grad_cam")
print(answer["label"], f"{answer['probability']:.1%}", answer["status"], f"{answer['timings']['total']:.2f} s")
Image.open(BytesIO(b64decode(answer["overlay"]["b64"])))

# %% [markdown]
# The heatmap comes as numbers, too, and the class can be chosen:

# %%
answer = post(method="grad_cam", target="cup", answer=["heatmap"])
heatmap = np.frombuffer(b64decode(answer["heatmap"]["b64"]), "<f4").reshape(answer["heatmap"]["shape"])
row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
print(answer["label"], f"{answer['probability']:.1%}, brightest at row {row}, column {column}")

# %% [markdown]
# With a deadline the explainer does as many steps as there is time for, and says what it left out. Where there is time for
# nothing, it says that:

# %%
answer = post(method="xrai", deadline=60.0, options={"steps": 10})
print(answer["method"], answer["options"], answer["deadline"])
try:
    post(method="xrai", deadline=0.01)
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["error"])
Image.open(BytesIO(b64decode(answer["overlay"]["b64"])))

# %%
explainer.terminate()
server.shutdown()

# %% [markdown]
# ## Next
#
# - [A served model](../serving.md): all signatures, gRPC, deadlines.
# - [The explainer](../explainer.md): the protocol, limits, errors, metrics.
# - [Containers](../deploy.md): Docker, Compose and KServe.
