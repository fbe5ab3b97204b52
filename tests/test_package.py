"""The package as it is installed: what the wheel holds, and the command that messages name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import emotion_tf
from emotion_tf.program import command, program

ROOT = Path(__file__).resolve().parent.parent
YUNET = ("face_detection_yunet_2023mar.onnx", "face_detection_yunet_LICENSE.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the project: building leaves files beside the sources."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("emotion_tf", "tuning"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    # setuptools is in requirements-dev.txt, so nothing is downloaded
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "dist",
    ]
    done = subprocess.run([*build, "."], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_a_wheel_holds_every_file_of_the_packages(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for package in ("emotion_tf", "tuning")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not {"__pycache__", "results"} & set(path.parts)
    }
    assert {"emotion_tf/py.typed", "tuning/py.typed", "emotion_tf/evaluation/report.html"} <= files
    assert {f"emotion_tf/faces/{name}" for name in YUNET} <= files
    assert files - names == set()
    assert {name.split("/")[0] for name in names} == {
        "emotion_tf",
        "tuning",
        f"emotion_tf-{emotion_tf.__version__}.dist-info",
    }


def test_a_wheel_names_its_command_and_what_it_needs(wheel):
    archive, info = zipfile.ZipFile(wheel), f"emotion_tf-{emotion_tf.__version__}.dist-info"
    assert "emotion-tf = emotion_tf.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = [line for line in lines if line and not line.startswith("#")]
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    assert sum("extra ==" not in line for line in required) == len(needed) > 10
    for extra, package in {"s3": "s3fs", "gs": "gcsfs", "cluster": "distributed"}.items():
        assert any(package in line and line.endswith(f'extra == "{extra}"') for line in required)
    assert "License-Expression: Apache-2.0 AND MIT\n" in metadata
    licences = ("LICENSE", f"emotion_tf/faces/{YUNET[1]}")
    assert all(archive.read(f"{info}/licenses/{name}") == (ROOT / name).read_bytes() for name in licences)


def test_the_client_needs_no_other_versions_than_the_program():
    project = (ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8")
    needed = set(re.findall(r'^    "([^"]+)",$', project, re.MULTILINE))
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {name for name in needed - set(lines) if not name.startswith("protobuf")} == set()
    assert not any(name.startswith(("tensorflow", "keras")) for name in needed) and len(needed) > 5


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("main.py", "python main.py"),
        ("/usr/bin/emotion-tf", "emotion-tf"),
        ("emotion-tf", "emotion-tf"),
        ("/clone/emotion_tf/__main__.py", "python -m emotion_tf"),
    ],
)
def test_messages_name_the_command_that_was_typed(path, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [path, "evaluate", "saved_models/a b"])
    assert program() == name
    assert command() == f"{name} evaluate 'saved_models/a b'"


@pytest.mark.parametrize("has_environment", [True, False])
def test_without_its_packages_the_program_says_how_to_get_them(has_environment, tmp_path):
    clone = tmp_path / "a clone"
    (clone / ".venv/bin").mkdir(parents=True)
    for name in ("main.py", "Makefile", *[".venv/bin/activate"] * has_environment):
        (clone / name).write_bytes((ROOT / "main.py").read_bytes())
    (clone / "emotion_tf").mkdir()
    for path in ROOT.glob("emotion_tf/*.py"):
        (clone / "emotion_tf" / path.name).write_bytes(path.read_bytes())
    shutil.copytree(ROOT / "emotion_tf/cli", clone / "emotion_tf/cli")
    # -S: without the packages of this environment
    words = [sys.executable, "-S", "main.py", "runs", "--x", "a b"]
    done = subprocess.run(words, cwd=clone, capture_output=True, text=True)
    setup = "" if has_environment else "make setup && "
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        f"error: {sys.executable} has no package 'tyro'. Use the environment of the project: {setup}"
        ". .venv/bin/activate && python main.py runs --x 'a b'\n"
    )
