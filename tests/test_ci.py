"""The script that checks a fresh clone, with stubs in place of the commands that it calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
STUB = """#!{bash}
name="$(basename "$0") $1"
echo "begin $name" >>events
[ -z "${{PYTHONDONTWRITEBYTECODE:-}}" ] || echo "$name keeps no compiled modules" >>events
[ ! -e "slow $name" ] || sleep 0.3
case "$1" in -m | test) echo "options: $*" >>events ;; esac
echo "output of $name"
echo "end $name" >>events
[ ! -e "fails $name" ] || exit 3
"""
SETUP, TRAIN, LINT, TEST, NPM, UPDATE, INSTALL, REAL, BROWSER = (
    "make setup",
    "make train",
    "make lint",
    "make test",
    "npm install",
    "apt-get update",
    "apt-get install",
    "python main.py",
    "python -m",
)
REQUIRED = ("bash", "basename", "cat", "dirname", "id", "mktemp", "rm", "sleep")


def run(folder, failing=(), slow=(), tools=True, data=False, uid=0):
    """Returns the exit code, the output and the events of the script in a folder with stubs."""
    clone, path = folder / "clone", folder / "bin"
    for directory in (clone / ".ci", clone / ".venv" / "bin", path):
        directory.mkdir(parents=True)
    shutil.copy(SCRIPT, clone / ".ci" / "run")
    for command in REQUIRED:
        (path / command).symlink_to(str(shutil.which(command)))
    bash = shutil.which("bash")
    stubs = [path / name for name in ("make", "npm", "apt-get", "chromium", "g++")] + [clone / ".venv/bin/python"]
    for stub in stubs:
        if tools or stub.name not in ("chromium", "g++"):
            stub.write_text(STUB.format(bash=bash))
            stub.chmod(0o755)
    if uid:
        (path / "id").unlink()
        (path / "id").write_text(f"#!{bash}\necho {uid}\n")
        (path / "sudo").write_text(f'#!{bash}\necho "sudo $*" >>events\n[ "$1" = -n ]\nexit 1\n')
        for name in ("id", "sudo"):
            (path / name).chmod(0o755)
    for prefix, names in (("fails", failing), ("slow", slow)):
        for name in names:
            (clone / f"{prefix} {name}").touch()
    if data:
        (folder / "shared" / "data").mkdir(parents=True)
    (folder / "tmp").mkdir()
    environment = {"PATH": str(path), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "output").open("w") as output:  # a pipe would wait for the jobs as well
        command = [str(bash), ".ci/run"]
        code = subprocess.run(command, cwd=clone, env=environment, stdout=output, stderr=output).returncode
    events = (clone / "events").read_text().splitlines()
    assert os.listdir(folder / "tmp") == []
    assert sorted(e[6:] for e in events if e.startswith("begin ")) == sorted(e[4:] for e in events if e[:4] == "end ")
    return code, (folder / "output").read_text(), events


@pytest.mark.parametrize("data", [False, True])
def test_runs_each_step(data, tmp_path):
    """With real data: a run on it beside all tests. Without: the quick ones, then those in a browser."""
    code, output, events = run(tmp_path, data=data, slow=[LINT, NPM, REAL])
    assert code == 0
    for step in (SETUP, TRAIN, NPM, LINT, TEST, REAL if data else BROWSER):
        assert f"end {step}" in events and f"output of {step}" in output
    assert (f"begin {REAL}" in events) == data and (f"begin {BROWSER}" in events) != data
    assert events.index(f"end {NPM}") < events.index(f"begin {TEST}")
    every = "options: test PYTEST=-rs --durations=25 -m 'slow or not slow'"
    browser = "options: -m pytest -q -rs --durations=25 -m slow -k browser tests"
    assert [event for event in events if event.startswith("options")] == (
        [every] if data else ["options: test", browser]
    )


@pytest.mark.parametrize(
    ("failing", "last"),
    [(SETUP, SETUP), (TEST, REAL), (TRAIN, LINT), (REAL, TEST), (LINT, TRAIN), (NPM, TRAIN)],
)
def test_no_job_outlives_a_failure_and_no_output_is_lost(failing, last, tmp_path):
    code, output, events = run(tmp_path, failing=[failing], slow=[NPM, LINT, REAL], data=True)
    assert code != 0 and f"end {failing}" in events and f"end {last}" in events
    assert (f"begin {TEST}" in events) == (failing in (TEST, REAL))
    for step in (NPM, LINT, REAL):
        assert (f"output of {step}" in output) == (f"end {step}" in events)


def test_a_failure_in_a_browser_is_one_of_the_script(tmp_path):
    code, output, events = run(tmp_path, failing=[BROWSER])
    assert code != 0 and f"end {BROWSER}" in events and f"output of {BROWSER}" in output


def test_compiled_modules_are_kept(tmp_path):
    """Without them each process compiles TensorFlow for 15 s."""
    code, _, events = run(tmp_path, data=True)
    assert code == 0 and not [event for event in events if event.endswith("keeps no compiled modules")]


def test_output_of_a_job_in_the_background_is_not_between_other_lines(tmp_path):
    _, output, _ = run(tmp_path, slow=[SETUP, TRAIN, TEST], data=True)
    lines = [line for line in output.splitlines() if line.startswith("output")]
    steps = [step for step in (SETUP, LINT, TRAIN, NPM, TEST, REAL) for _ in range(4 if step == REAL else 1)]
    assert [line for line in lines if "pair_meld" not in line] == [f"output of {step}" for step in steps]


def test_tools_are_installed_where_they_are_missing(tmp_path):
    code, _, events = run(tmp_path, tools=False)
    assert code == 0 and f"end {INSTALL}" in events


def test_a_machine_without_a_package_index_skips_the_tests_that_need_tools(tmp_path):
    code, _, events = run(tmp_path, failing=[UPDATE], tools=False)
    assert code == 0 and f"end {BROWSER}" in events and f"begin {INSTALL}" not in events


def test_asks_for_no_password(tmp_path):
    code, _, events = run(tmp_path, tools=False, uid=1000)
    assert code == 0 and [event for event in events if event.startswith("sudo")] == ["sudo -n apt-get update -qq"]
