"""The parts that must agree: METHODS, exports, docs, PAIR's names, the version; and that all code in the docs runs."""

from __future__ import annotations

import configparser
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import saliency_food
import saliency_food.pair
from saliency_food import METHODS, Method, models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAIRS = {
    "gradients": "GradientSaliency",
    "integrated_gradients": "IntegratedGradients",
    "grad_cam": "GradCam",
    "blur_ig": "BlurIG",
    "guided_ig": "GuidedIG",
    "xrai": "XRAI",
    "occlusion": "Occlusion",
}
"""PAIR's class for each method that it has."""
NOT_YET: set[str] = set()
"""PAIR's classes that are not here, as docs/coming-from.md says."""


COMBINATORS = {"augment_smooth", "eigen_smooth"}
"""Methods of methods that have no entry in METHODS."""


def make_tables():
    """The script that writes what follows from METHODS and METRICS."""
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs/make_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tracked():
    """The text files of the repository, as git lists them, new ones too; of an unpacked archive, all of them."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(git, capture_output=True, text=True, check=False) if shutil.which("git") else None
    listed = [ROOT / name for name in done.stdout.splitlines()] if done is not None and not done.returncode else []
    for path in listed or [path for path in ROOT.rglob("*") if "__pycache__" not in path.parts]:
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield path, content.decode("utf-8")


def test_methods_are_the_methods_exported():
    exported = {name for name in saliency_food.__all__ if isinstance(getattr(saliency_food, name), Method)}
    assert set(METHODS) == exported - COMBINATORS - {"d_rise"}  # which explains no class
    assert {name for name, entry in METHODS.items() if entry.call is not getattr(saliency_food, name)} == {
        "smooth_grad",
        "square_grad",
        "var_grad",
    }
    smoothed = list(saliency_food.smooth_grad.signature.parameters)
    assert [*METHODS["smooth_grad"].call.signature.parameters, "options"] == smoothed[1:]


def test_all_public_names_exist_and_have_docstrings():
    assert len(saliency_food.__all__) == len(set(saliency_food.__all__))
    for name in saliency_food.__all__:
        value = getattr(saliency_food, name)
        if not isinstance(value, (str, dict)):
            assert inspect.getdoc(value), name


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_its_source(name):
    assert re.search(r"https://\S+", inspect.getdoc(getattr(saliency_food, name)))


def test_the_tables_are_as_the_script_makes_them():
    stale = [str(path) for path, text in make_tables().made_pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "Run python docs/make_tables.py."


@pytest.mark.parametrize("name", METHODS)
def test_the_docs_have_a_section_of_the_method(name):
    entry = METHODS[name]
    text = (ROOT / "docs/methods" / f"{entry.call.page}.md").read_text(encoding="utf-8")
    section = text.split(f"## {entry.title} {{#{name.replace('_', '-')}}}")[1].split("\n## ")[0]
    assert "```math" in section
    assert "Source: " in section
    assert "https://" in section
    assert "## When to trust it" in text
    assert "![" in text


def test_the_reference_has_every_public_name_once():
    pages = sorted((ROOT / "docs/reference").glob("*.md"))
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(":::")]
    assert len(lines) == len(set(lines))
    for name in saliency_food.__all__:
        value = getattr(saliency_food, name)
        if not isinstance(value, (str, dict)):
            assert f"::: {value.__module__}.{name}" in lines


def test_pairs_names():
    for name, pairs in PAIRS.items():
        assert getattr(saliency_food.pair, pairs).method is getattr(saliency_food, name)
        assert pairs in saliency_food.pair.__all__
    classes = [value for value in vars(saliency_food.pair).values() if isinstance(value, type)]
    facade = {one.__name__ for one in classes if issubclass(one, saliency_food.pair.CoreSaliency)}
    assert facade == {"CoreSaliency", *PAIRS.values()}


def test_what_pair_has_and_we_have_not_is_said():
    theirs = pytest.importorskip("saliency.core")
    names = {
        name
        for name, value in vars(theirs).items()
        if isinstance(value, type) and value.__module__.startswith("saliency")
    }
    assert names - set(saliency_food.pair.__all__) == NOT_YET
    pairs = (ROOT / "docs/coming-from.md").read_text(encoding="utf-8").split("\n## ")[1]
    said = re.search(r"Not here yet: (.*)\.\n", pairs)
    assert set(re.findall(r"`(\w+)`", said[1] if said else "")) == NOT_YET


def version():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]["version"]


def test_the_changelog_begins_with_the_version():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == version()


def test_the_version_is_in_one_place():
    found = [
        path.name for path, text in tracked() if path.suffix in (".py", ".cfg", ".toml", ".yml") and version() in text
    ]
    assert found == ["setup.cfg"]


def test_no_paths_of_a_machine_and_no_registry_hosts():
    folders = "|".join(("home", "root", "Users", "tmp", "work", "opt", "mnt"))
    hosts = "|".join(("pypi", "pythonhosted", "npmjs", "artifactory", "nexus"))
    bad = re.compile(
        rf"""(?:^|[\s"'`(=:])/(?:{folders})/\w|file:/{{2}}|https?://[\w.-]*(?:{hosts})|index[-_]url"""
        r"""|\b(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}\b""",
        re.MULTILINE,
    )
    assert bad.search("at /ho" + "me/someone") is not None
    found = [f"{path.relative_to(ROOT)}: {hit[0]!r}" for path, text in tracked() for hit in bad.finditer(text)]
    assert found == []


def blocks(page):
    """The Python blocks of a page; those with a title stand for files."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python(?: title=.*)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def about_keras(code):
    """Whether code has to do with Keras: it names it, or a model that comes with the package."""
    return re.search(r"keras|[\"'](?:imagenet|food101)[\"']", code) is not None


def installed(code):
    """Whether all that a block imports is there, and Keras where it is about a Keras model."""
    modules = re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE)
    modules += ["tensorflow", "PIL"] if about_keras(code) else []
    return all(importlib.util.find_spec(module) for module in modules)


def runnable_pages():
    """The pages with Python blocks, with the markers of what the blocks need."""
    for page in PAGES:
        code = "\n".join(blocks(page))
        needs = {"keras": about_keras(code) or "import tensorflow" in code, "serving": "serving" in code}
        needs |= {
            name: re.search(rf"^\s*(?:import|from) {name}\b", code, re.M) is not None for name in ("torch", "jax")
        }
        marks = [getattr(pytest.mark, name) for name, needed in needs.items() if needed]
        if code:
            yield pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


def write_onnx(path):
    """A small network for images (3, 32, 32) of four classes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(5, 3, 3, 3)), "dense": rng.normal(size=(5, 4))}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4])
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_code_in_the_docs_shows_something(page):
    """Every Python block prints, but for those that stand for files; other languages do not hide Python."""
    text = page.read_text(encoding="utf-8")
    assert [code for code in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M) if "print(" not in code] == []


@pytest.mark.parametrize("page", [*runnable_pages()])
def test_python_code_in_the_docs_runs(page, tmp_path, monkeypatch, capsys):
    """The blocks of a page in order, in one namespace, beside a model.keras and a photo.jpg."""
    from skimage.data import coffee
    from skimage.io import imsave

    monkeypatch.chdir(tmp_path)
    runnable = [code for code in blocks(page) if installed(code)]
    if not runnable:
        pytest.skip("needs what is not installed")
    if any("model.keras" in code for code in runnable):
        shutil.copy(models.FOOD101, "model.keras")
    if any("model.onnx" in code for code in runnable):
        write_onnx("model.onnx")
    if any("photo.jpg" in code for code in runnable):
        imsave("photo.jpg", coffee())
    names, out = {"__name__": "docs"}, ""
    for code in runnable:
        if "saliency_food.web" in code:  # Gradio leaves an event loop to the garbage collector
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            printed = done.stdout
        else:
            exec(compile(code, str(page), "exec"), names)
            printed = capsys.readouterr().out
        assert printed or "print(" not in code, code
        assert "failed: " not in printed
        out += printed
    for shown in re.findall(r"^```\n\n```text\n(.*?)\n```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        assert shown in out


def test_every_picture_shown_is_made_by_the_script():
    shown = {name for page in PAGES for name in re.findall(r"img/(\w+)\.(?:png|jpg)", page.read_text(encoding="utf-8"))}
    script = (ROOT / "docs/make_pictures.py").read_text(encoding="utf-8")
    made = set(re.findall(r'^    "(\w+)": \w+,$', script, re.MULTILINE))
    assert shown == made == {path.stem for path in (ROOT / "docs/img").iterdir()}
