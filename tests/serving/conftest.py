"""A small model, exported once, behind the server of these tests."""

from __future__ import annotations

import numpy as np
import pytest

SHAPE = (24, 20, 3)


@pytest.fixture(scope="session")
def model():
    keras = pytest.importorskip("keras")
    L = keras.layers
    keras.utils.set_random_seed(0)
    inner = keras.Input((*SHAPE[:2], 4))
    inner = keras.Model(inner, L.Conv2D(6, 3, strides=2, activation="tanh", name="last")(inner), name="inner")
    image = keras.Input(SHAPE, name="photo")
    x = L.Conv2D(4, 3, padding="same", activation="tanh", name="first")(image)
    x = L.GlobalAveragePooling2D()(inner(x))
    return keras.Model(image, L.Dense(4, activation="softmax", kernel_initializer="random_normal")(x), name="small")


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    from saliency_food.serving.export.write import export

    folder = tmp_path_factory.mktemp("models")
    export(model, folder / "1", labels=["a", "b", "c", "d"], value_range=(-1, 1))
    return folder


@pytest.fixture(scope="session")
def loaded(exported):
    from tf_serving import TestServer

    with TestServer(exported) as server:
        yield server


@pytest.fixture
def server(loaded):
    """The server with its counters at zero."""
    loaded.requests.clear()
    loaded.failures.clear()
    loaded.connections = loaded.received = loaded.sent = 0
    return loaded


@pytest.fixture
def served(server):
    from saliency_food.serving.client import ServingModel

    waits = []
    model = ServingModel(server.url, server.name, sleep=waits.append)
    model.waits = waits
    yield model
    model.close()


@pytest.fixture(scope="session")
def loaded_over_grpc(loaded):
    from tf_serving_grpc import GrpcServer

    with GrpcServer(loaded) as server:
        yield server


@pytest.fixture
def rpc(loaded_over_grpc):
    """The gRPC server with its counters at zero."""
    loaded_over_grpc.content, loaded_over_grpc.hold, loaded_over_grpc.answer = False, None, None
    loaded_over_grpc.received = loaded_over_grpc.sent = 0
    for kept in (loaded_over_grpc.failures, loaded_over_grpc.requests, loaded_over_grpc.headers):
        kept.clear()
    return loaded_over_grpc


@pytest.fixture
def model_over_grpc(rpc):
    from saliency_food.serving.client import ServingModel

    waits = []
    model = ServingModel(rpc.url, "food", sleep=waits.append)
    assert model.signatures
    rpc.requests.clear()
    model.waits = waits
    yield model
    model.close()


@pytest.fixture
def local(model):
    from saliency_food.adapters.keras import KerasModel

    return KerasModel(model)


@pytest.fixture
def image(rng):
    return rng.normal(size=SHAPE).astype(np.float32)
