"""The folders of exports: facts that a stranger wrote, entries that are no files, names that are no versions."""

import json
import os

import pytest

from emotion_tf.errors import UserError
from emotion_tf.runs.export import Export, versions
from emotion_tf.runs.facts import FILE, ModelFacts, read_exported, write_exported


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "1" / FILE).parent.mkdir(parents=True)
    write_exported(tmp_path / "1", ModelFacts("x", ("a", "b"), 32, 1, 0, False))
    return tmp_path / "1"


@pytest.mark.parametrize(
    "values",
    [
        {"face_size": 1_000_000},
        {"face_size": "32"},
        {"face_size": True},
        {"context": 10**12},
        {"max_faces": -1},
        {"labels": []},
        {"labels": "ab"},
        {"labels": ["a", 1]},
        {"name": None},
        {"crops": [1]},
    ],
    ids=str,
)
def test_facts_that_no_export_has(values, folder):
    facts = json.loads((folder / FILE).read_text())
    assert read_exported(folder).labels == ("a", "b")
    (folder / FILE).write_text(json.dumps(facts | values))
    with pytest.raises(UserError, match="No export at"):
        read_exported(folder)


def test_deeply_nested_facts(folder):
    (folder / FILE).write_text("[" * 100_000)
    with pytest.raises(UserError, match="No export at"):
        read_exported(folder)


def test_a_pipe_in_place_of_the_facts_is_not_opened(folder):
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    for read in (read_exported, Export.open):
        with pytest.raises(UserError, match="is no file and no folder"):
            read(folder)


def test_a_link_to_itself(folder):
    (folder / "assets").symlink_to("assets")
    with pytest.raises(UserError, match="is no file and no folder"):
        Export.open(folder)


@pytest.mark.parametrize("name", ["9 ", " 9", "01", "+9", "-1", "\u00b2", "\u0669", "9" * 30, "new"])
def test_a_name_that_servers_may_take_for_a_version(name, untrained, tmp_path, fault, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for file in untrained.iterdir():
        (run / file.name).symlink_to(file)
    for version in ("1", name):
        (run / "serving" / version).mkdir(parents=True)
    (run / "serving" / ".hidden").mkdir()
    for verb in ("serve", "export"):
        assert "is no version number" in fault(verb, run)
    (run / "serving" / name).rmdir()
    assert versions(run / "serving") == [1]


def test_a_version_that_no_server_reads(untrained, fault):
    assert "Expected a number from 1 to 999,999,999,999,999,999" in fault("export", untrained, "--version", 10**18)
