"""Every number has a range, and every path that a command writes is checked before the command computes anything."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest

from emotion_tf import command_line
from emotion_tf.cli import load
from emotion_tf.cli.arguments import crossval_arguments, train_arguments
from emotion_tf.cli.verbs import VERBS
from emotion_tf.config import Config, CropConfig, FusionConfig, TextConfig, rules
from emotion_tf.config.rules import Output, Range
from emotion_tf.errors import UserError


def holds_numbers(kind) -> bool:
    """Whether a type is a number, or a list of numbers, or may be one."""
    return kind in (int, float) or (get_origin(kind) is not Literal and any(map(holds_numbers, get_args(kind))))


def numbers_without_a_range(annotated) -> list[str]:
    """Fields or parameters that take numbers of any size, also those of dataclasses inside."""
    limits, names = rules.ranges_of(annotated), []
    for name, kind in get_type_hints(annotated).items():
        if holds_numbers(kind) and name not in limits:
            names.append(name)
        for inner in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(inner):
                names += [f"{name}.{number}" for number in numbers_without_a_range(inner)]
    return names


@dataclasses.dataclass
class Inner:
    """Options with numbers."""

    number: int
    share: float | None
    shares: tuple[float, ...]
    limited: Annotated[float | None, Range(0, 1)]
    kind: Literal["a"]


@dataclasses.dataclass
class Outer:
    """Options with others inside."""

    inner: Inner
    several: tuple[Inner, ...]


def test_numbers_are_found_at_any_depth():
    fields = ["number", "share", "shares"]
    assert numbers_without_a_range(Inner) == fields
    assert numbers_without_a_range(Outer) == [f"{name}.{field}" for name in ("inner", "several") for field in fields]


def test_every_number_of_the_configuration_has_a_range_that_contains_its_default():
    for section in (Config().text, Config().face, Config().fusion, Config().train, CropConfig()):
        assert not numbers_without_a_range(type(section))
        for name, limits in rules.ranges_of(type(section)).items():
            limits.check(name, getattr(section, name))
            with pytest.raises(UserError, match="Expected a number"):
                value = 10**20 if type(getattr(section, name)) is not tuple else (10**20,)
                dataclasses.replace(section, **{name: value})


def test_every_number_of_the_command_line_has_a_range():
    for verb in VERBS:
        for function in (verb.run, verb.arguments):
            assert not function or not numbers_without_a_range(load(function)), verb.name


def test_too_many_numbers_are_refused():
    with pytest.raises(UserError, match="`fusion.dense_units`. Expected at most 32 numbers. Received: 33"):
        FusionConfig(dense_units=(8,) * 33)


@pytest.mark.parametrize("verb, option", [(train_arguments, "--seeds"), (crossval_arguments, "--repeats")])
def test_the_last_of_several_seeds_is_in_the_range(verb, option):
    last = ["--train.seed", str(2**32 - 1)]
    assert verb(last).config.train.seed == 2**32 - 1
    with pytest.raises(UserError, match=f"Expected at most 4294967294 with {option} 2"):
        verb([*last, option, "2"])


@pytest.mark.parametrize("path", ["x" * 5000, "a/" + "x" * 256, "a\0b", "a\ud800"])
def test_a_path_that_no_file_can_have_is_refused(path):
    for make in (lambda: Config(data=path), lambda: TextConfig(init=path), lambda: CropConfig(detector_model=path)):
        with pytest.raises(UserError, match="Expected a path of less than 4,096 bytes"):
            make()
    with pytest.raises(UserError, match="Invalid `--out`. Expected a path of less than 4,096 bytes"):
        command_line.parse(load("predict:predict_table"), ["run", "t.csv", "--out", path], "x")


def test_a_name_that_is_not_utf8_is_a_path():
    Config(data="a\udcff")


FILES = {"compare": [".", "."], "predict-table": [".", "t.csv"], "features": [".", "data"]}
FOLDERS = {
    "predict-film": [".", "clip.mp4", "film.srt"],
    "explain": [".", "--text", "Hi"],
    "prepare table": ["t.csv"],
    "prepare clips": ["t.csv"],
    "prepare meld": ["--root", "meld"],
    "prepare faces": ["faces"],
    "prepare demo": [],
}


def outputs_of(annotated):
    """Returns what is written at each `out` of a function or dataclass, also in dataclasses inside; else None."""
    for name, kind in get_type_hints(annotated, include_extras=True).items():
        if name == "out":
            yield next((note for note in get_args(kind) if isinstance(note, Output)), None)
        for inner in (kind, *get_args(kind)):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from outputs_of(inner)


def test_every_output_of_a_verb_is_checked():
    outputs = {verb.name: list(outputs_of(load(verb.run))) for verb in VERBS if not verb.arguments}
    assert {name for name, kinds in outputs.items() if kinds == [Output.FILE]} == set(FILES)
    stored = {name for name in FOLDERS if name.startswith("prepare ")}
    assert {name for name, kinds in outputs.items() if kinds == [Output.FOLDER]} == set(FOLDERS) - stored
    assert {name for name, kinds in outputs.items() if kinds == [Output.FOLDER_OR_URL]} == stored
    assert sum(map(bool, outputs.values())) == len(FILES) + len(FOLDERS)


def write_to(verb, out):
    (run,) = (row.run for row in VERBS if row.name == verb)
    command_line.parse(load(run), [*{**FILES, **FOLDERS}[verb], "--out", str(out)], "x")


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_only_data_sets_are_written_into_object_storage(verb):
    if verb.startswith("prepare "):
        write_to(verb, "s3://bucket/data")
        return
    kind = "file" if verb in FILES else "folder"
    with pytest.raises(UserError, match=f"^Invalid `--out`. Expected a local {kind}. Received: s3://bucket/data.$"):
        write_to(verb, "s3://bucket/data")


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(verb, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Invalid `--out`\. .* Received .*file/x/y, but .*file is a file"):
        write_to(verb, tmp_path / "file" / "x" / "y")
    new = tmp_path / "new" / "x"
    if verb in FILES:
        (tmp_path / "link").symlink_to(tmp_path)
        (tmp_path / "link of a file").symlink_to(new)
        for path in (new, tmp_path / "link of a file"):
            with pytest.raises(UserError, match=f"a folder that exists.* Create the folder {new.parent}, or choose"):
                write_to(verb, path)
        for folder in (tmp_path, tmp_path / "link"):
            with pytest.raises(UserError, match=f"Expected the name of a file. Received the folder {folder}; add a"):
                write_to(verb, folder)
    else:
        write_to(verb, new)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=f"that you may write.* but {tmp_path} is not writable"):
        write_to(verb, tmp_path / "x")


def test_outputs_that_exist_and_streams_are_left_to_the_verb(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("b")
    os.mkfifo(tmp_path / "pipe")
    for out in ("-", "/dev/null", *(tmp_path / name for name in ("a", "link", "pipe", "new"))):
        write_to("predict-table", out)
    for out in (tmp_path, tmp_path / "a", tmp_path / "link", tmp_path / "new"):
        write_to("explain", out)
    assert sorted(os.listdir(tmp_path)) == ["a", "link", "pipe"]


def test_an_ensemble_in_a_folder_that_is_a_file_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models").touch()
    with pytest.raises(UserError, match="Invalid `--name`. .* Received saved_models/x, but .*saved_models is a file"):
        load("ensemble:_out")("x", overwrite=False)
