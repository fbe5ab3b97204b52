"""The files of deploy/ fit each other, the program and one release of TensorFlow Serving."""

import re
import subprocess
from pathlib import Path

import yaml
from helpers import ROOT
from model_server import ModelServer

from emotion_tf.serving.release import IMAGE, RELEASE


def test_prometheus_asks_where_the_server_answers():
    monitoring = (ROOT / "deploy" / "monitoring.config").read_text()
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    deployment, _ = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert "enable: true" in monitoring
    assert f'path: "{job["metrics_path"]}"' in monitoring and annotations["prometheus.io/path"] == job["metrics_path"]
    assert job["static_configs"][0]["targets"] == [f"localhost:{annotations['prometheus.io/port']}"]


def test_one_release_of_the_server_everywhere():
    pages = [*(ROOT / "deploy").iterdir(), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    images = [image for page in pages for image in re.findall(r"tensorflow/serving:[\w.]+", page.read_text("utf-8"))]
    assert set(images) == {IMAGE} and len(images) >= 3
    assert (
        f"TensorFlow Serving {RELEASE} can run"
        in (ROOT / "emotion_tf" / "serving" / "server_ops.txt").read_text("utf-8").splitlines()[0]
    )
    assert f"| TensorFlow Serving | {RELEASE} |" in (ROOT / "docs" / "serving.md").read_text("utf-8")


def test_compose_and_kubernetes_give_the_server_the_files_that_they_mount():
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["serving"]
    deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert compose["command"] == container["args"]
    sources = [volume.split(":")[0] for volume in compose["volumes"][1:]]
    assert all((ROOT / "deploy" / source).is_file() for source in sources)
    wanted = {Path(word.partition("=")[2]).name for word in compose["command"] if "/config/" in word}
    assert {Path(source).name for source in sources} == wanted
    created = re.findall(r"--from-file=(\S+)", (ROOT / "deploy" / "kubernetes.yaml").read_text())
    assert {Path(path).name for path in created} == wanted and all((ROOT / path).is_file() for path in created)
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {port["name"] for port in container["ports"]}


def test_the_health_check_of_compose():
    """Its command, with the port of a test server."""
    (_, *words) = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["serving"]["healthcheck"][
        "test"
    ]
    with ModelServer({"mine": None}) as server:
        check = [word.replace("8501", str(server.rest_port)) for word in words]
        assert subprocess.run(check).returncode == 0
        assert subprocess.run([word.replace("models/mine", "models/other") for word in check]).returncode != 0
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode != 0


def test_the_dockerfile_copies_what_the_package_is_built_from():
    lines = (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    kept = {
        line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert copied == kept and all((ROOT / name).exists() for name in copied)
    requirements = (ROOT / "requirements.txt").read_text()
    assert len(re.findall(r"^tensorflow>", requirements, re.MULTILINE)) == 1  # which `GPU=1` replaces
