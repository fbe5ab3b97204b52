"""`options` and docs/options.md say what the configuration has."""

import dataclasses

from helpers import ROOT

from emotion_tf.cli import options as option_list
from emotion_tf.config import CHOICES, PRESETS, Config, CropConfig


def found():
    return {option.flag: option for _, options in option_list.sections() for option in options}


def test_every_option_with_its_default_and_what_it_is():
    options = found()
    for part in ("text", "face", "fusion", "train"):
        for field in dataclasses.fields(getattr(Config(), part)):
            option = options[f"--{part}.{field.name.replace('_', '-')}"]
            default = getattr(getattr(Config(), part), field.name)
            assert option.default == (
                " ".join(map(str, default))
                if isinstance(default, tuple)
                else str(default).lower()
                if isinstance(default, bool)
                else str(default)
            )
            assert len(option.about) > 15
    assert {f"--faces.{f.name.replace('_', '-')}" for f in dataclasses.fields(CropConfig)} <= set(options)
    assert options["--towers"].default == "text face" and options["--data"].default == "tfrecords/demo"


def test_every_preset_has_its_values():
    options = found()
    assert options["--face.augment"].presets == {"demo": "false"} and options["--train.momentum"].presets == {}
    assert options["--train.epochs"].presets == {"demo": "10", "minilm": "3", "base": "4"}
    assert options["--text.branches"].presets == {"minilm": "bert gru", "base": "bert gru"}
    for name, preset in PRESETS.items():
        for flag, option in options.items():
            *section, field = flag.removeprefix("--").replace("-", "_").split(".")
            if section != ["faces"]:
                value = getattr(getattr(preset, section[0]) if section else preset, field)
                assert option_list._format(value) == option.presets.get(name, option.default)


def test_every_choice_belongs_to_an_option_whose_default_it_holds():
    options = found()
    assert {flag for flag, option in options.items() if option.names} == {
        "--" + name.replace("_", "-") for name in CHOICES
    }
    for option in options.values():
        if option.names:
            assert set(option.default.split()) <= {name for name, _ in option.names}
            assert all(about for _, about in option.names)


def test_the_page_in_the_docs_is_the_present_one():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == option_list.as_markdown(), "python main.py options --markdown > docs/options.md"


def test_the_verb(succeed):
    printed = succeed("options")
    for name in ("--text.branches", "--fusion.kind", "lowrank", "Liu 2018", "--faces.policy", "speaking"):
        assert name in printed
    assert succeed("options", "--markdown") == option_list.as_markdown()
