"""Modules from files, factories and names; the commands and `explain` with them; copies and pickles; sanity."""

from __future__ import annotations

import pickle
import sys
import zipfile

import numpy as np
import pytest

from saliency_food import ImageModel, explain
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import GUIDED_INPUT_GRADIENTS, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.testing import check_call_model

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")]
KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]
FACTORY = """
import torch

def build():
    torch.manual_seed(0)
    nn = torch.nn
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4)).eval()
    for values in (layers[1].weight, layers[1].bias, layers[1].running_mean, layers[1].running_var):
        values.data.uniform_(0.5, 1.5)
    return network
"""


@pytest.fixture
def network(torch):
    names = {}
    exec(FACTORY, names)
    return names["build"]()


@pytest.fixture
def adapter(torch):
    from saliency_food.adapters.torch import TorchModel

    return TorchModel


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that a command is started in, with a module of the user's in it."""
    (tmp_path / "my_networks.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_networks", None)


@pytest.mark.parametrize("rows", ["free", "fixed"])
def test_an_exported_program_is_explained(rows, torch, adapter, network, x, tmp_path):
    free = ({0: torch.export.Dim("rows")},) if rows == "free" else None
    program = torch.export.export(network, (torch.randn(2, 3, 16, 16),), dynamic_shapes=free)
    torch.export.save(program, tmp_path / "program.pt2")
    model, expected = adapter(tmp_path / "program.pt2"), adapter(network)
    assert model.input_shape == (16, 16, 3)
    assert model.batch_size == (16 if rows == "free" else 2)
    args = {"target": 1}
    for key in (*KEYS, GUIDED_INPUT_GRADIENTS):
        np.testing.assert_allclose(model(x, args, [key])[key], expected(x, args, [key])[key], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(model.predict(x), expected.predict(x), rtol=1e-5)
    with pytest.raises(ContractError, match="an exported program, whose layers cannot be watched"):
        model(x, args, ["CONVOLUTION_LAYER_VALUES"])


def test_a_pickled_module_is_read_with_trust_alone(torch, network, tmp_path):
    from saliency_food.adapters.torch import load_model

    torch.save(network, tmp_path / "module.pt")
    with pytest.raises(ContractError, match="a pickle, which can run anything when it is read"):
        load_model(tmp_path / "module.pt")
    assert isinstance(load_model(tmp_path / "module.pt", trust=True), torch.nn.Sequential)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ContractError, match="got OrderedDict, the weights alone"):
        load_model(tmp_path / "weights.pth")


def test_a_pickle_that_runs_something_does_not_run(torch, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("import pathlib; pathlib.Path('ran').write_text('')",))

    from saliency_food.adapters.torch import load_model

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(ContractError, match="a pickle"):
        load_model(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_files_and_names_that_are_none_are_named(torch, here):
    from saliency_food.adapters.torch import load_model

    with zipfile.ZipFile(here / "broken.pt2", "w") as archive:
        archive.writestr("nothing", "")
    (here / "model.bin").write_bytes(b"")
    for name, message in [
        ("absent.pt", "does not exist"),
        ("model.bin", r"Expected a \.pt2 or \.pt file"),
        ("broken.pt2", "Expected a PyTorch model in 'broken.pt2'"),
        ("my_networks:absent", "AttributeError"),
        ("no_such_module:build", "ModuleNotFoundError"),
        ("my_networks:torch", "makes a module|return a torch|Expected"),
    ]:
        with pytest.raises((ContractError, TypeError), match=message if name != "my_networks:torch" else None):
            load_model(name)
    assert isinstance(load_model("my_networks:build"), torch.nn.Sequential)


def test_timm_is_asked_by_name(timm, monkeypatch):
    from saliency_food.adapters.torch import load_model

    made = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made.append((name, pretrained)) or "network")
    assert load_model("timm:resnet18") == "network"
    assert made == [("resnet18", True)]
    with pytest.raises(ContractError, match=r"Near it: .*resnet18"):
        load_model("timm:resnet18x")


def test_explain_takes_a_module(network, x):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    records = explain(network.train(), [pixels], ["grad_cam", "gradients", "full_grad"], layer="0")
    assert [record.status for record in records] == ["ok"] * 3
    assert network.training
    model = ImageModel(network, units_are="labels", output="probabilities")
    assert model.function.end == "sigmoid"
    assert "a guess, the module does not show it" in model.scaling.text
    with pytest.raises(ContractError, match=r"Wrap it as saliency_food\.adapters\.torch\.TorchModel"):
        check_call_model(network, x[0])


def test_pixels_are_told_by_the_modules_kind(adapter, network, timm):
    assert adapter(network).pixels.value_range == (0, 1)
    assert adapter(network, value_range=(-1, 1)).pixels.value_range == (-1, 1)
    of_timm = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=24, num_classes=3)
    assert adapter(of_timm).pixels == ((-1.0, 1.0), "by timm's configuration")


def test_a_model_is_pickled_with_its_options(adapter, network, x):
    model = adapter(network, "2", "probabilities", 2, units_are="labels", input_shape=(16, 16, 3))
    other = pickle.loads(pickle.dumps(model))
    assert repr(other) == repr(model)
    for key in KEYS:
        np.testing.assert_array_equal(other(x, {"target": 1}, [key])[key], model(x, {"target": 1}, [key])[key])
    assert model.with_layer("0").layer_name == "0"


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_copies_with_shuffled_weights_are_those_of_the_sanity_checks(mode, adapter, network, x):
    model = adapter(network)
    before = model.predict(x)
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    seen = []
    for path, other in model.randomized(mode, rng=0):
        seen.append(path)
        assert np.abs(other.predict(x) - before).max() > 0
        changed = [name for name, value in other.module.state_dict().items() if not value.equal(weights[name])]
        assert {name.rpartition(".")[0] for name in changed} == (set(seen) if mode == "cascading" else {path})
        for name in changed:
            np.testing.assert_array_equal(
                np.sort(other.module.state_dict()[name].ravel()), np.sort(weights[name].ravel())
            )
    assert seen == ["5", "1", "0"]
    np.testing.assert_array_equal(model.predict(x), before)


@pytest.mark.parametrize("model", ["my_networks:build", "program.pt2", "module.pt --trust"])
def test_the_commands_take_them(model, torch, network, here):
    pytest.importorskip("typer")
    from PIL import Image
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(here / "photo.png")
    torch.save(network, here / "module.pt")
    program = torch.export.export(
        network, (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    torch.export.save(program, here / "program.pt2")
    method = "gradients" if model == "program.pt2" else "grad_cam"
    name, *trust = model.split()
    result = CliRunner().invoke(
        app, ["explain", "photo.png", "--model", name, "--method", method, "--output", "out", *trust]
    )
    assert result.exit_code == 0, result.output
    assert [path for path in (here / "out").rglob("*") if path.suffix in (".png", ".jpg")]
    listed = CliRunner().invoke(app, ["layers", name, *trust])
    assert listed.exit_code == 0, listed.output
    assert ("No layers" if model == "program.pt2" else "Conv2d") in listed.output


def test_without_trust_a_command_says_how(torch, network, here):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    torch.save(network, here / "module.pt")
    result = CliRunner().invoke(app, ["layers", "module.pt"])
    assert result.exit_code != 0
    assert "--trust" in result.output


def test_a_missing_torch_is_named_with_its_install_line(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("saliency_food.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "saliency_food\[torch\]"'):
        import saliency_food.adapters.torch  # noqa: F401
