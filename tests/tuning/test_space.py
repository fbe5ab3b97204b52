"""The search space: only options with an effect, and only valid configurations."""

import contextlib
import dataclasses
import random

import pytest

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig, preset
from emotion_tf.errors import UserError
from tuning.selection import select
from tuning.space import PRETRAINED, DatasetFacts, Range, apply, declare, draw, label, parameters

FACTS = DatasetFacts(context=8, crops=3)
BERT = dataclasses.replace(preset("minilm"), train=TrainConfig(epochs=3))
DECAY = dataclasses.replace(BERT.text, layer_decay=0.9, freeze_embeddings=True, pooling="attention")
BASES = {
    "demo": preset("demo"),
    "text": dataclasses.replace(preset("demo"), towers=("text",)),
    "face": dataclasses.replace(preset("demo"), towers=("face",), train=TrainConfig(optimizer="sgd", momentum=0.5)),
    "minilm": BERT,
    "decay": dataclasses.replace(BERT, text=DECAY),
    "frozen": dataclasses.replace(BERT, text=TextConfig(branches=("bert",), train_encoder=False)),
    "resnet": dataclasses.replace(
        BERT, face=FaceConfig(branches=("resnet50",), unfreeze_from="conv5_block1_1_conv"), towers=("face",)
    ),
    "both": dataclasses.replace(BERT, face=FaceConfig(branches=("resnet50",))),
    "random network": dataclasses.replace(BERT, face=FaceConfig(branches=("resnet50",), weights="none")),
    "glove": Config(text=TextConfig(branches=("bert", "cnn"), embeddings="x.txt", train_embeddings=False)),
    "init": Config(text=TextConfig(init="saved_models/a"), face=FaceConfig(init="saved_models/b")),
    "kept": Config(text=TextConfig(branches=("bert",), init="saved_models/a", train_tower=False)),
    "odd heads": Config(fusion=FusionConfig(width=100, heads=3)),
    "odd values": Config(train=TrainConfig(batch_size=24, loss="focal", weight_decay=0.5, learning_rate=0.5)),
}


class Draw:
    """What the space needs of KerasTuner's `HyperParameters`, drawn at random."""

    def __init__(self, seed):
        self.random, self.values, self.active = random.Random(seed), {}, True

    def Choice(self, name, values, default):
        assert default in values and len({type(v) for v in values}) == 1
        return self._keep(name, self.random.choice(values))

    def Float(self, name, low, high, sampling, default):
        assert low <= default <= high and (sampling == "linear" or low > 0)
        return self._keep(name, self.random.choice([low, high, self.random.uniform(low, high)]))

    @contextlib.contextmanager
    def conditional_scope(self, parent, values):
        self.active = self.values.get(parent) in values
        yield
        self.active = True

    def _keep(self, name, value):
        if not self.active:
            return None
        self.values[name] = value
        return value


def searched(base, *names, fix=(), facts=FACTS):
    return select(parameters(base, facts), names, fix, base, facts)


def options(base, *names, **more):
    return [p.option for p in searched(base, *names, **more)]


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_a_draw_differs_from_the_base_only_in_the_searched_options(base):
    space = searched(base)
    names = {p.option for p in space}
    for seed in range(300):
        config = draw(Draw(seed), space, base)  # an invalid configuration raises
        for part in ("text", "face", "fusion", "train"):
            for field in dataclasses.fields(getattr(base, part)):
                value = getattr(getattr(config, part), field.name)
                same = value == getattr(getattr(base, part), field.name)
                assert same or f"{part}.{field.name}" in names or value == field.default


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_a_draw_of_some_options_is_a_valid_configuration(base):
    names = options(base)
    for seed in range(100):
        chance = random.Random(seed)
        words = chance.sample(names, chance.randint(1, len(names)))
        try:
            space = searched(base, *words)
        except UserError as error:  # the options have no effect without some that are fixed
            assert "with an effect beside the fixed ones" in str(error)
            continue
        config = draw(Draw(seed), space, base)
        assert {p.option for p in space} <= set(words) and isinstance(config, Config)


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_space_contains_its_base(base):
    class Defaults(Draw):
        def Choice(self, name, values, default):
            return self._keep(name, default)

        def Float(self, name, low, high, sampling, default):
            return self._keep(name, default)

    assert draw(Defaults(0), searched(base), base) == base


def test_only_options_with_an_effect_are_searched():
    assert not [name for name in options(BASES["text"]) if name.startswith("face") or name == "fusion.kind"]
    assert not [name for name in options(BASES["face"]) if name.startswith("text")]
    assert "text.pooling" not in options(BASES["demo"]) and "text.pooling" in options(BERT)
    assert "text.context" in options(BERT) and "text.context" not in options(BERT, facts=DatasetFacts(0, 3))
    assert "face.frames" in options(BERT) and "face.frames" not in options(BERT, facts=DatasetFacts(8, 1))
    assert "train.freeze_epochs" in options(BERT) and "train.freeze_epochs" not in options(BASES["demo"])
    assert "text.train_encoder" not in options(BASES["frozen"]) and "train.pretrained_rate" not in options(
        BASES["frozen"]
    )
    assert "face.unfreeze_from" in options(BASES["resnet"]) and "face.unfreeze_from" not in options(BERT)
    assert not {"text.train_encoder", "train.pretrained_rate", "train.freeze_epochs"} & set(options(BASES["kept"]))
    assert not {"text.branches", "text.gru_units", "face.cnn_filters", "text.context"} & set(options(BASES["init"]))
    assert ("bert",) not in next(p.domain for p in searched(BASES["glove"]) if p.option == "text.branches")


def test_sgd_is_searched_only_if_it_is_named():
    """Or if the configuration has it: at the rates of the others it stays near the majority floor."""
    assert "train.momentum" not in options(BERT) and "train.momentum" in options(BASES["face"])
    (optimizer,) = searched(BERT, "optimizer=sgd,adamw")
    assert optimizer.domain == ("sgd", "adamw")
    (optimizer,) = searched(BERT, "optimizer")
    assert sorted(optimizer.domain) == ["adam", "adamw", "rmsprop"]


def test_an_option_is_drawn_only_with_the_choice_that_gives_it_an_effect():
    base = dataclasses.replace(BERT, train=dataclasses.replace(BERT.train, optimizer="sgd"))
    space = searched(base)
    for seed in range(200):
        values = declare(Draw(seed), space, base)
        assert ("train.momentum" in values) == (values["train.optimizer"] == "sgd")
        assert ("train.focal_gamma" in values) == (values["train.loss"] == "focal")
        assert ("text.gru_units" in values) == ("gru" in values["text.branches"])
        assert ("fusion.rank" in values) == (values["fusion.kind"] == "lowrank")
        assert ("train.freeze_epochs" in values) == values["text.train_encoder"]


@pytest.mark.parametrize("base", ["both", "random network"])
def test_pretrained_parts_are_frozen_first_only_where_one_trains(base):
    """Of two pretrained parts both may be drawn as frozen; a network with random weights is not pretrained."""
    space, drawn = searched(BASES[base]), set()
    for seed in range(300):
        values = declare(Draw(seed), space, BASES[base])
        config = apply(BASES[base], values)
        trains = config.text.train_encoder or (base == "both" and config.face.train_backbone)
        assert (PRETRAINED[0] in values) == (PRETRAINED[1] in values) == trains
        drawn.add(trains)
        assert trains or config.train.freeze_epochs == 0
    assert drawn == {True, False}
    text = dataclasses.replace(BASES[base].text, branches=("gru",))
    without_bert = options(dataclasses.replace(BASES[base], text=text))
    assert (set(PRETRAINED) <= set(without_bert)) == (base == "both")


def test_names_select_options_last_words_and_sections():
    base = BASES["demo"]
    assert options(base, "learning_rate", "dropout") == [
        "train.learning_rate", "text.dropout", "face.dropout", "fusion.dropout",
    ]  # fmt: skip
    assert options(base, "fusion") == [name for name in options(base) if name.startswith("fusion.")]
    assert options(base, "--train.learning-rate") == ["train.learning_rate"]
    assert "train.loss" not in options(base, fix=["loss"]) and "train.focal_gamma" not in options(base, fix=["loss"])
    assert options(base, "train", fix=["train.loss"])[0] == "train.learning_rate"


def test_values_replace_the_domain():
    base = BASES["demo"]
    space = {p.option: p.domain for p in searched(
        base, "learning_rate=1e-3:5e-3", "batch_size=8,128", "fusion.kind=concat,gated", "text.branches=gru+lstm,cnn",
        "face.cnn_filters=4-8,8-16", "dense_units=none,64", "warmup=0,0.1",
    )}  # fmt: skip
    assert space == {
        "train.learning_rate": Range(1e-3, 5e-3, log=True),
        "train.batch_size": (8, 128),
        "fusion.kind": ("concat", "gated"),
        "text.branches": (("gru", "lstm"), ("cnn",)),
        "face.cnn_filters": ((4, 8), (8, 16)),
        "fusion.dense_units": ((), (64,)),
        "train.warmup": (0.0, 0.1),
    }
    assert [label(v) for v in space["text.branches"]] == ["gru+lstm", "cnn"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learning_rat"], "Did you mean 'learning_rate'?"),
        (["text.pooling"], "Expected options with an effect in this configuration: train.learning_rate"),
        (["dropout=0.1:0.2"], "Expected one option before the '='"),
        (["learning_rate=1e-2:1e-3"], "Expected LOW:HIGH, the lower first"),
        (["learning_rate=0:1"], "above 0"),
        (["batch_size=many"], "Expected values such as 32"),
        (["batch_size=0"], "Invalid `train.batch_size`. Expected a number from 1 to"),
        (["focal_gamma=0.5,200"], "Invalid `train.focal_gamma`"),
        (["fusion.kind=concatt"], "Did you mean 'concat'?"),
        (["fusion.width=30"], "Invalid `fusion.heads`"),
        (["text.branches=bert,gru"], "Expected the pretrained branches of the configuration"),
        (["text.context=20"], "Expected at most 8, which the data set stores"),
        (["lstm_units"], "Expected options with an effect beside the fixed ones. Received: 'lstm_units'"),
    ],
)
def test_invalid_names_and_values(words, message):
    with pytest.raises(UserError) as error:
        searched(BASES["demo"], *words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_nothing_left_to_search():
    with pytest.raises(UserError, match="with an effect beside the fixed ones"):
        searched(BASES["demo"], "loss", fix=["train"])
    with pytest.raises(UserError, match="Nothing to search"):
        searched(BASES["demo"], fix=["train", "text", "face", "fusion"])


def test_apply_resets_options_without_an_effect():
    config = apply(BASES["decay"], {"text.train_encoder": False, "train.optimizer": "adam"})
    assert (config.text.layer_decay, config.text.freeze_embeddings) == (1.0, False)
    assert config.text.pooling == "attention"
    assert apply(BASES["resnet"], {"face.train_backbone": False}).face.unfreeze_from == ""
    assert apply(BASES["odd values"], {"train.optimizer": "adam", "train.loss": "cross_entropy"}).train == TrainConfig(
        batch_size=24, learning_rate=0.5, optimizer="adam"
    )


def test_kerastuner_draws_the_same_space():
    """Its own container, with the oracle that fills it: a value for what is active and for nothing else."""
    import keras_tuner as kt

    base = BASES["minilm"]
    space = searched(base)
    hp = kt.HyperParameters()
    assert draw(hp, space, base) == base  # one call registers everything, with the base as defaults
    assert {p.name for p in hp.space} == {p.option for p in space}
    oracle = kt.oracles.RandomSearchOracle(kt.Objective("x", "max"), max_trials=100, hyperparameters=hp, seed=1)
    for _ in range(50):
        filled = hp.copy()
        filled.values = oracle.populate_space("0")["values"]
        assert set(declare(filled, space, base)) == set(filled.values)
