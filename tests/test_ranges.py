"""Every number of the configuration and of the command line has a range."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest

from emotion_tf import command_line
from emotion_tf.cli import load
from emotion_tf.cli.arguments import crossval_arguments, train_arguments
from emotion_tf.cli.verbs import VERBS
from emotion_tf.config import Config, CropConfig, FusionConfig, TextConfig, rules
from emotion_tf.config.rules import Range
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
