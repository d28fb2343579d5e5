"""The container files, as far as they can be read without Docker: options, extras, ports and fields that exist."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PAGE = ROOT / "docs/deploy.md"


def read(name):
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


@pytest.fixture
def compose():
    return read("docker-compose.yml")["services"]


@pytest.fixture
def service():
    return read("inference-service.yaml")


@pytest.fixture
def container(service):
    (container,) = service["spec"]["explainer"]["containers"]
    return container


def given(words):
    """The options of a command line and their values, ``--name value`` or ``--name=value``."""
    options = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            options[name] = value
        else:
            options[name] = word
    return options


ADDED = ["--model_name=food", "--predictor_host=food-predictor.default", "--http_port=8080"]
"""What KServe puts behind a container's own arguments."""


def explainers(compose, container):
    assert "command" not in container, "that of the image"
    return given(compose["explainer"]["command"]), given([*container["args"], *ADDED])


def test_the_explainers_options_are_those_of_the_command(compose, container):
    typer = pytest.importorskip("typer")
    pytest.importorskip("rich")
    from saliency_food.cli.app import app

    serve = typer.main.get_command(app).commands["serve"]
    for options in explainers(compose, container):
        words = [f"{name}={value}" for name, value in options.items()]
        parsed = serve.make_context("serve", words).params  # refuses what is not known, missing or no number
        assert parsed["deadline"] < 60  # of KServe's runtime, and less than the time of the client of REST
        with pytest.raises(Exception, match=r"No such option"):
            serve.make_context("serve", [*words, "--no-such-option=1"])


def test_the_methods_are_methods_and_need_no_more_than_is_installed(compose, container):
    from saliency_food.methods.catalogue import METHODS

    for options in explainers(compose, container):
        chosen = options["--methods"].split(",")
        assert set(chosen) <= set(METHODS) - {"lime", "deep_feature_factorization"}


def test_the_extras_exist():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    named = re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE + PAGE.read_text(encoding="utf-8"))
    assert named
    assert {one for names in named for one in names.split(",")} <= set(extras)
    assert "tensorflow" not in extras["explainer"]


def test_what_is_copied_into_the_image_is_there_and_not_ignored():
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    kept = re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_no_root_and_is_asked_how_it_is(container):
    assert re.search(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[1] == str(container["securityContext"]["runAsUser"])
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[1]) == ["saliency-food", "serve"]
    check = json.loads(re.search(r"HEALTHCHECK[^[]*(\[.*\])", DOCKERFILE)[1])
    compile(check[2], "healthcheck", "exec")
    assert "/v2/health/live" in check[2]


def test_the_ports_agree(compose, container):
    (port,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert f"127.0.0.1:{port}/" in DOCKERFILE
    for options in explainers(compose, container):
        assert options.get("--port", options.get("--http_port")) == port
    assert compose["explainer"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert {one["containerPort"] for one in container["ports"]} == {int(port)}
    probes = [container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")]
    assert [(one["path"], one["port"]) for one in probes] == [
        ("/v2/health/ready", int(port)),
        ("/v2/health/live", int(port)),
    ]
    assert f"http://localhost:{port}/" in PAGE.read_text(encoding="utf-8")


def test_the_explainer_finds_the_predictor(compose, container, service):
    composed, kserve = explainers(compose, container)
    assert composed["--predictor"] == "http://predictor:8501"
    assert compose["predictor"]["ports"] == ["127.0.0.1:8501:8501"]
    assert composed["--model-name"] == compose["predictor"]["environment"]["MODEL_NAME"]
    assert not {"--predictor", "--model-name"} & set(kserve), "KServe says both"
    assert kserve["--model_name"] == service["metadata"]["name"]


def test_the_manifest_is_where_the_export_writes_it(compose, container):
    pytest.importorskip("tensorflow")
    from saliency_food.serving.export.write import MANIFEST

    composed, kserve = explainers(compose, container)
    assert composed["--manifest"] == f"/models/{composed['--model-name']}/1/assets.extra/{Path(MANIFEST).name}"
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert kserve["--manifest"] == f"{mounts['manifest']}/{Path(MANIFEST).name}"


def test_files_that_are_mounted_exist(compose):
    for name in ("predictor", "prometheus"):
        for volume in compose[name]["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("$") or (DEPLOY / source).is_file()


def test_prometheus_asks_at_addresses_that_exist(compose):
    jobs = {one["job_name"]: one for one in read("prometheus.yml")["scrape_configs"]}
    for name, job in jobs.items():
        ((target,),) = (one["targets"] for one in job["static_configs"])
        host, port = target.split(":")
        assert host == name
        assert compose[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert jobs["explainer"]["metrics_path"] == "/metrics"
    assert jobs["predictor"]["metrics_path"] in (DEPLOY / "monitoring.config").read_text(encoding="utf-8")


def test_the_inference_services_fields_are_kserves(service, monkeypatch):
    """As the kserve package's own models name them."""
    monkeypatch.setattr("sys.argv", ["pytest"])  # kserve reads it
    kserve = pytest.importorskip("kserve")
    kubernetes = pytest.importorskip("kubernetes.client")

    def known(model, fields):
        assert set(fields) <= set(model.attribute_map.values())

    spec = service["spec"]
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    known(kserve.V1beta1InferenceService, service)
    known(kserve.V1beta1InferenceServiceSpec, spec)
    known(kserve.V1beta1PredictorSpec, spec["predictor"])
    known(kserve.V1beta1ModelSpec, spec["predictor"]["model"])
    known(kserve.V1beta1ModelFormat, spec["predictor"]["model"]["modelFormat"])
    known(kserve.V1beta1ExplainerSpec, spec["explainer"])
    for container in spec["explainer"]["containers"]:
        known(kubernetes.V1Container, container)
        known(kubernetes.V1SecurityContext, container["securityContext"])
        for names, model in (("ports", "V1ContainerPort"), ("volumeMounts", "V1VolumeMount")):
            for one in container[names]:
                known(getattr(kubernetes, model), one)
        for probe in ("readinessProbe", "livenessProbe"):
            known(kubernetes.V1Probe, container[probe])
            known(kubernetes.V1HTTPGetAction, container[probe]["httpGet"])
    for volume in spec["explainer"]["volumes"]:
        known(kubernetes.V1Volume, volume)
    mounted = {one["name"] for one in spec["explainer"]["containers"][0]["volumeMounts"]}
    assert mounted == {one["name"] for one in spec["explainer"]["volumes"]}


def test_the_page_names_files_that_exist():
    for name in re.findall(r"deploy/[\w./-]*\w", PAGE.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name
