"""The configuration as JSON and as the command line of `train`, and its error messages."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import kills
import pytest

from emotion_tf import config, folders
from emotion_tf.cli.arguments import TrainArguments, train_arguments
from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.errors import UserError

UNUSUAL = Config(
    data="tfrecords/Mañana 'x'",
    towers=("text",),
    text=TextConfig(branches=("gru", "bert"), encoder="https://tfhub.dev/a/1", train_encoder=False, pooling="cls"),
    face=FaceConfig(branches=("resnet50", "cnn"), weights="none", cnn_filters=(4,), augment=False),
    fusion=FusionConfig(dense_units=(), dropout=0.0),
    train=TrainConfig(learning_rate=3e-5, clip_norm=0.5, class_weights="balanced", seed=2**32 - 1, deterministic=True),
)


@pytest.fixture(autouse=True, scope="module")
def earlier_command():
    """The user has named the unusual encoder before."""
    train_arguments(["--preset", "minilm", "--text.encoder", UNUSUAL.text.encoder])


def fault(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = " ".join(str(caught.value).split())
    assert message == str(caught.value)
    return message


def changed(path: Path, edit) -> Path:
    """A config.json with one edit."""
    values = json.loads(config.to_json(Config()))
    edit(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("original", [UNUSUAL, *config.PRESETS.values(), config.smoke(UNUSUAL)])
def test_config_json_round_trip(original, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json(original), encoding="utf-8")
    assert config.read_config(path) == original
    assert config.to_json(config.read_config(path)) == config.to_json(original)


def test_missing_keys_have_their_defaults_and_a_whole_number_is_a_float(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"train": {"learning_rate": 1}}', encoding="utf-8")
    parsed = config.read_config(path)
    assert parsed == dataclasses.replace(Config(), train=TrainConfig(learning_rate=1.0))
    assert type(parsed.train.learning_rate) is float


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda c: c.update(tower=["text"]), ["`tower`", "Did you mean 'towers'?"]),
        (lambda c: c["text"].update(brances=["gru"]), ["`text.brances`", "Did you mean 'branches'?"]),
        (lambda c: c["train"].update(epochs="3"), ["`train.epochs`", "Expected an integer", "'3'"]),
        (lambda c: c["train"].update(epochs=3.0), ["`train.epochs`", "Expected an integer", "3.0"]),
        (lambda c: c["train"].update(epochs=True), ["`train.epochs`", "Expected an integer", "True"]),
        (lambda c: c["train"].update(deterministic=1), ["`train.deterministic`", "Expected true or false", "1"]),
        (lambda c: c["train"].update(learning_rate=None), ["`train.learning_rate`", "Expected a number", "None"]),
        (lambda c: c["text"].update(branches="gru"), ["`text.branches`", "Expected a list", "'gru'"]),
        (lambda c: c["text"].update(branches=[3]), ["`text.branches[0]`", "Expected a text", "3"]),
        (lambda c: c["face"].update(cnn_filters=[8, 1.5]), ["`face.cnn_filters[1]`", "Expected an integer", "1.5"]),
        (lambda c: c.update(text=["gru"]), ["`text`", "Expected an object", "['gru']"]),
        (lambda c: c["train"].update(learning_rate=float("nan")), ["`train.learning_rate`", "above 0", "nan"]),
        (lambda c: c["text"].update(branches=["brt"]), ["`text.branches`", "bert, gru", "Did you mean 'bert'?"]),
    ],
)
def test_an_invalid_config_json(edit, parts, tmp_path):
    message = fault(config.read_config, changed(tmp_path / "config.json", edit))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe{", b'{"train": 3}', b"null", b"[" * 10**5])
def test_what_is_no_config_json(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert str(path) in fault(config.read_config, path)
    assert "No configuration" in fault(config.read_config, tmp_path / "none.json")
    assert str(tmp_path) in fault(config.read_config, tmp_path)


def test_a_pipe_and_a_repeated_key_are_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    assert "Not a regular file" in fault(config.read_config, tmp_path / "pipe.json")
    assert fault(config.read_config, tmp_path).endswith("Expected the config.json of a run in saved_models/.")
    (tmp_path / "twice.json").write_text('{"data": "a", "data": "b"}')
    assert "`data`. Expected one value. Received: 2" in fault(config.read_config, tmp_path / "twice.json")


@pytest.mark.parametrize(
    ("part", "name", "value", "rule", "hint"),
    [
        ("", "towers", ("texts",), "text, face", "'text'"),
        ("text", "branches", ("gruu",), "bert, gru", "'gru'"),
        ("text", "branches", (), "one or more", ""),
        ("text", "branches", ("gru", "gru"), "different", ""),
        ("face", "branches", ("resnet5",), "cnn, resnet50", "'resnet50'"),
        ("text", "pooling", "men", "mean, cls", "'mean'"),
        ("text", "max_tokens", 2, "from 3 to 4,096", ""),
        ("text", "max_words", 0, "from 1 to 4,096", ""),
        ("text", "vocabulary_size", 0, "from 1 to 1,000,000", ""),
        ("text", "gru_units", -3, "from 1", ""),
        ("text", "cnn_widths", (2, 0), "from 1 to 64", ""),
        ("text", "context", -1, "from 0", ""),
        ("text", "context_tokens", 1, "from 2", ""),
        ("text", "layer_decay", 1.5, "from 0 to 1", ""),
        ("text", "layer_decay", 0.9, "a bert branch that is trained", ""),
        ("text", "freeze_embeddings", True, "a bert branch that is trained", ""),
        ("text", "train_embeddings", False, "an effect only with --text.embeddings", ""),
        ("text", "dropout", 1.0, "below 1", ""),
        ("face", "dropout", -0.1, "from 0", ""),
        ("face", "weights", "imagnet", "imagenet, none", "'imagenet'"),
        ("face", "cnn_filters", (), "at least one", ""),
        ("face", "cnn_filters", (8, 0), "from 1", ""),
        ("fusion", "dense_units", (0,), "from 1", ""),
        ("fusion", "dropout", float("nan"), "below 1", ""),
        ("train", "epochs", 0, "from 1", ""),
        ("train", "batch_size", 0, "from 1", ""),
        ("train", "learning_rate", 0.0, "above 0", ""),
        ("train", "learning_rate", float("inf"), "up to 1,000", ""),
        ("train", "pretrained_rate", 1.5, "from 0 to 1", ""),
        ("train", "warmup", -0.5, "from 0 to 1", ""),
        ("train", "weight_decay", -1.0, "from 0 to 1,000", ""),
        ("train", "clip_norm", 0.0, "above 0", ""),
        ("train", "class_weights", "balance", "none, balanced", "'balanced'"),
        ("train", "freeze_epochs", -1, "from 0", ""),
        ("train", "patience", 0, "from 1", ""),
        ("train", "steps_per_epoch", -1, "from 0", ""),
        ("train", "seed", -1, "from 0", ""),
        ("train", "seed", 2**32, "to 4,294,967,295", ""),
    ],
)
def test_an_invalid_value_names_field_rule_and_value(part, name, value, rule, hint):
    def make():
        inner = {name: value}
        return Config(**({part: dataclasses.replace(getattr(Config(), part), **inner)} if part else inner))

    message = fault(make)
    assert f"`{part + '.' if part else ''}{name}`" in message
    assert rule in message and hint in message and "Received" in message
    received = value[-1] if isinstance(value, tuple) and value else "none" if name == "cnn_filters" else value
    assert str(received).strip("()") in message.split("Received")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": ("bert",), "embeddings": "glove.txt"}, "It has an effect only with a branch gru, lstm or cnn"),
        ({"branches": ("bert",), "train_encoder": False, "layer_decay": 0.9}, "a bert branch that is trained"),
        (
            {"branches": ("bert",), "init": "r", "train_tower": False, "freeze_embeddings": True},
            "a bert branch that is trained",
        ),
        ({"embeddings": "glove.txt", "init": "saved_models/x"}, "It has an effect only without --text.init"),
        ({"train_encoder": False}, "`text.train_encoder`. It has an effect only with a bert branch"),
        ({"pooling": "attention"}, "`text.pooling`. It has an effect only with a bert branch"),
        ({"cnn_widths": ()}, "Expected one or more different numbers. Received: []"),
        ({"cnn_widths": (3, 3)}, "Expected one or more different numbers. Received: [3, 3]"),
    ],
)
def test_text_options_without_an_effect_are_refused(options, message):
    assert message in fault(lambda: TextConfig(**options))
    TextConfig(branches=("bert", "cnn"), embeddings="glove.txt", train_embeddings=False, layer_decay=0.9)


def test_presets():
    assert config.preset("demo").data == Config().data and not config.preset("demo").uses_bert
    assert config.preset("minilm").uses_bert and config.preset("minilm").text.branches == ("bert", "gru")
    assert config.preset("base").face.branches == ("resnet50", "cnn")
    assert "Did you mean 'minilm'?" in fault(config.preset, "minilmm")


@pytest.mark.parametrize(
    ("towers", "uses"),
    [("text", (True, False, True)), ("face", (False, True, False)), ("face text", (True, True, True))],
)
def test_towers_in_use(towers, uses):
    original = Config(towers=tuple(towers.split()), text=TextConfig(branches=("bert",)))
    assert original.towers == tuple(name for name in ("text", "face") if name in towers)  # in the order of the model
    assert (original.uses_text, original.uses_face, original.uses_bert) == uses


def test_every_field_is_an_option_and_documented(capsys):
    with pytest.raises(SystemExit) as end:
        train_arguments(["--help"])
    help_text = capsys.readouterr().out
    assert end.value.code == 0
    for part in ("text", "face", "fusion", "train"):
        for item in dataclasses.fields(getattr(Config(), part)):
            name = item.name.replace("_", "-")
            assert f"--{part}.{name} " in help_text or f"--{part}.[no-]{name}" in help_text


# The command line of `train`


def arguments(*words: str) -> TrainArguments:
    return train_arguments(words)


def test_the_default_is_the_demo_preset():
    assert arguments() == TrainArguments(config=config.preset("demo"))


def test_preset_and_overrides():
    parsed = arguments(
        "--preset", "minilm", "--text.branches", "bert", "--train.learning-rate", "3e-5", "--towers", "text"
    )
    start = config.preset("minilm")
    assert parsed.config == dataclasses.replace(
        start,
        towers=("text",),
        text=dataclasses.replace(start.text, branches=("bert",)),
        train=dataclasses.replace(start.train, learning_rate=3e-5),
    )


def test_config_file_and_overrides(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json(UNUSUAL), encoding="utf-8")
    assert arguments("--config", str(path)).config == UNUSUAL
    parsed = arguments(
        f"--config={path}", "--fusion.dense-units", "8", "4", "--data", "tfrecords/x", "--name", "n"
    ).config
    assert parsed == dataclasses.replace(
        UNUSUAL, data="tfrecords/x", fusion=dataclasses.replace(UNUSUAL.fusion, dense_units=(8, 4))
    )


def test_booleans_of_the_configuration_are_pairs():
    bert = ("--text.branches", "bert")
    assert arguments(*bert, "--text.no-train-encoder").config.text.train_encoder is False
    assert arguments(*bert, "--text.no-train-encoder", "--text.train-encoder").config.text.train_encoder is True
    changed = arguments("--train.deterministic", "--face.no-augment").config
    assert changed.train.deterministic is True and changed.face.augment is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--face.augment", "false"], "--face.augment takes no value. Write --face.no-augment. Received"),
        (["--name", "true", "--face.augment=False"], "Write --face.no-augment. Received: --face.augment False"),
        (["--train.deterministic", "true"], "Write --train.deterministic. Received"),
        (["--overwrite", "false"], "--overwrite takes no value. Leave --overwrite out. Received"),
        (["--resume=true"], "Write --resume. Received"),
        (["--face.no-augment", "false"], "Write --face.augment. Received"),
        (["--smoke", "5"], "--smoke takes no value. Write --smoke. Received: --smoke 5"),
    ],
)
def test_a_flag_with_a_value_names_the_right_form(words, message):
    assert message in fault(arguments, *words)


@pytest.mark.parametrize(
    "words", [["--name", "b", "b"], ["--name", "really", "really", "good"], ["--overwrite", ""], ["--seeds", "true"]]
)
def test_only_a_flag_is_said_to_take_no_value(words):
    assert "takes no value" not in fault(arguments, *words)


def test_flags_take_no_value():
    parsed = arguments("--overwrite", "--smoke", "--name", "true")
    assert parsed.overwrite and parsed.smoke
    assert parsed.name == "true"  # the value of --name


def test_smoke_changes_only_the_length_of_training():
    parsed = arguments("--smoke", "--preset", "minilm", "--train.epochs", "9").config
    assert (parsed.train.epochs, parsed.train.steps_per_epoch) == (1, 4)
    assert parsed.text == config.preset("minilm").text


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--text.brnches", "gru"], ["--text.brnches", "Did you mean --text.branches?"]),
        (["--epochs", "3"], ["--epochs", "--train.epochs"]),
        (["--train.epochs", "x"], ["`--train.epochs`. Expected a whole number, such as 3. Received: 'x'. --help"]),
        (["--text.dropout", "x"], ["`--text.dropout`. Expected a number, such as 0.5. Received: 'x'. --help"]),
        (["--face.cnn-filters", "4", "x"], ["`--face.cnn-filters`. Expected whole numbers, such as 8 16", "'x'"]),
        (["--train.epochs"], ["--train.epochs", "Expected one."]),
        (
            ["--text.train-encoder", "maybe"],
            ["--text.train-encoder takes no value", "--text.no-train-encoder", "maybe"],
        ),
        (["--text.branches", "brt"], ["`text.branches`", "'brt'", "Did you mean 'bert'?"]),
        (["--preset", "mini"], ["--preset", "'mini'", "Did you mean 'minilm'?"]),
        (["--preset"], ["--preset"]),
        (["--preset", "minilm", "--config", "x.json"], ["--preset and --config", "Expected one of them"]),
        (["--config", "no/such.json"], ["no/such.json"]),
        (["surplus"], ["surplus"]),
        (["--new", "3"], ["Unknown option --new. --help lists the options."]),
        (["--seed", "1"], ["Unknown option --seed. Did you mean --train.seed? --help lists the options."]),
        (["--lr=1", "--batch_size", "8"], ["mean --train.learning-rate?", "--batch_size. Did you mean --train.batch"]),
        (["--learning-rate", "1"], ["Did you mean --train.learning-rate?"]),
        (["--batch", "8"], ["Did you mean --train.batch-size?"]),
        (["--dropout", "1"], ["Did you mean --text.dropout, --face.dropout or --fusion.dropout?"]),
        (["--train.epoch", "1"], ["Did you mean --train.epochs?"]),
        (["--fusion", "sum"], ["Did you mean --fusion.kind?"]),
        (["--backbone", "cnn"], ["Did you mean --face.train-backbone?"]),
        (["--no-augment"], ["Did you mean --face.no-augment?"]),
        (["--name", "../.."], ["--name", "'../..'"]),
        (["--name", ".."], ["--name", "'..'"]),
        (["--name", "/tmp/x"], ["--name", "'/tmp/x'"]),
    ],
)
def test_an_invalid_option_is_one_line(words, parts):
    text = fault(arguments, *words)
    assert all(part in text for part in parts), text
    assert not set("│╭╮╰╯─") & set(text)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A saved_models with one interrupted run."""
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    run = tmp_path / "halfway"
    (run / "checkpoint").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "config.json").write_text(config.to_json(UNUSUAL), encoding="utf-8")
    return run


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "--name", "halfway"], ["--name=halfway", "--resume"]])
def test_resume_takes_the_configuration_of_the_run(interrupted, words):
    parsed = arguments(*words)
    assert parsed.resume and parsed.name == "halfway" and parsed.config == UNUSUAL


@pytest.mark.parametrize(
    "words",
    [["--train.epochs", "99"], ["--smoke"], ["--preset", "minilm"], ["--config", "x/config.json"], ["--overwrite"]],
)
def test_resume_with_other_options_is_refused(interrupted, words):
    message = fault(arguments, "--resume", *words)
    assert "--resume" in message and str(interrupted) in message


def test_nothing_to_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    assert "Nothing to resume" in fault(arguments, "--resume")
    assert "nobody" in fault(arguments, "--resume", "--name", "nobody")


def test_a_free_folder_skips_existing_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "RUNS", tmp_path)
    with folders.free_folder(Config()) as path:
        assert path == tmp_path / "demo-text-face"
    (tmp_path / "demo-text-face").mkdir()
    with folders.free_folder(Config()) as path:
        assert path == tmp_path / "demo-text-face-2"


def test_a_search_for_a_free_folder_locks_no_other(tmp_path, monkeypatch):
    """A command that writes an existing run at that moment would be refused."""
    writer, paths = folders.locks.writer, []
    monkeypatch.setattr(folders.locks, "writer", lambda path: (paths.append(path.name), writer(path))[1])
    (tmp_path / "demo-text-face").mkdir()
    (tmp_path / ".demo-text-face-2.replaced").mkdir()
    with folders.free_folder(Config(), tmp_path):
        assert paths == ["demo-text-face-3"]


def test_a_free_folder_is_nobody_elses(tmp_path):
    (tmp_path / "demo-text-face").mkdir()
    with folders.free_folder(Config(), tmp_path) as path, pytest.raises(KeyboardInterrupt):
        assert path == tmp_path / "demo-text-face-2"
        code = "from emotion_tf.config import Config\nfrom emotion_tf.folders import free_folder\n"
        done = kills.run(f"{code}with free_folder(Config(), Path('.')) as path:\n    print(path)", tmp_path)
        assert done.stdout == "demo-text-face-3\n", done.stderr
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["demo-text-face"]
