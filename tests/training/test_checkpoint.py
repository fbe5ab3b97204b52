"""Checkpoints: what is written comes back, also in two files; where a training stands."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.errors import UserError
from emotion_tf.training.checkpoint import LAST, Checkpoints, State, best_name


@pytest.fixture
def variables():
    """A matrix, a seed, and a mean as `Average` has it."""
    return [
        keras.Variable(np.arange(6, dtype=np.float32).reshape(2, 3), name="kernel"),
        keras.Variable(np.array([1, 2], np.uint32), dtype="uint32", trainable=False, name="seed"),
        tf.Variable([0.5, 0.25], trainable=False),
    ]


def values(variables):
    return [v.numpy().tolist() for v in variables]


def change(variables):
    for variable in variables:
        variable.assign(variable.numpy() + 1)


def test_saved_variables_are_loaded(variables, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint", variables)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
    optimizer.build(variables[:1])
    optimizer.apply([np.ones((2, 3), np.float32)])
    state = State(epoch=3, best=0.5, best_epoch=1, seconds=2.5)
    assert not checkpoints.has(LAST)
    checkpoints.save(LAST, state, optimizer)
    assert checkpoints.has(LAST) and not checkpoints.has(best_name(1))
    before, moments = values(variables), values(optimizer.variables)
    change(variables)
    change(optimizer.variables)
    assert checkpoints.load(LAST) == state
    assert values(variables) == before and values(optimizer.variables) != moments
    checkpoints.load_optimizer(LAST, optimizer)
    assert values(optimizer.variables) == moments and len(moments) == 3


def test_checkpoints_of_a_phase_hold_the_changed_variables(variables, tmp_path):
    """The base is written once, and holds what the phase does not change."""
    checkpoints = Checkpoints(tmp_path, variables)
    kernel, _, mean = start = values(variables)
    checkpoints.save_base(2)
    variables[1].assign([7, 8])
    checkpoints.save(LAST, State(epoch=3), trained={id(variables[1])}, base=2)
    change(variables)
    checkpoints.save_base(2)
    with np.load(tmp_path / LAST) as arrays:
        assert set(arrays) == {"about", "model/1"}
    assert checkpoints.load(LAST) == State(epoch=3)
    assert values(variables) == [kernel, [7, 8], mean] != start
    # without a base all variables are in the file
    change(variables)
    checkpoints.save(best_name(4), State(epoch=4))
    (tmp_path / "base-2.npz").unlink()
    whole = values(variables)
    change(variables)
    checkpoints.load(best_name(4))
    assert values(variables) == whole


def test_a_linked_folder_is_not_written(variables, tmp_path):
    """A run of somebody else could link the checkpoints of another run, which would be replaced and deleted."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "checkpoint").symlink_to("mine")
    with pytest.raises(UserError, match="checkpoint is a symbolic link to mine"):
        Checkpoints(tmp_path / "checkpoint", variables)


def test_a_checkpoint_of_another_model_is_refused(variables, tmp_path):
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save(LAST, State())
    other = keras.Variable(np.zeros((3, 3), np.float32), name="wider")
    for variables_of_another in ([other, *variables[1:]], [*variables, other]):
        with pytest.raises(UserError, match="belongs to another model .*wider.*--overwrite"):
            Checkpoints(tmp_path, variables_of_another).load(LAST)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([other])
    with pytest.raises(UserError, match=r"to another model \(optimizer variable 0"):
        checkpoints.load_optimizer(LAST, optimizer)


def test_the_state_after_an_epoch():
    state = State()
    assert state.epochs_since_best == 0
    for score, best, best_epoch, since in ((0.2, 0.2, 0, 0), (0.5, 0.5, 1, 0), (0.5, 0.5, 1, 1), (0.4, 0.5, 1, 2)):
        before = state
        state = state.after_epoch(score, 1.5)
        assert (state.best, state.best_epoch, state.epochs_since_best) == (best, best_epoch, since)
        assert state.epoch == before.epoch + 1 and state.seconds == before.seconds + 1.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(variables, tmp_path, value):
    checkpoints = Checkpoints(tmp_path, variables)
    variables[0].assign(np.array([[1, 2, 3], [4, value, 6]], np.float32))
    with pytest.raises(UserError, match="The weights 'kernel' became nan or infinite"):
        checkpoints.save(LAST, State())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ('{"epoch": "1"}', "`epoch`. Expected an integer"),
        ('{"epoch": 1, "best": NaN}', "`best`. Expected a finite number"),
        ('{"epoch": 1, "best": 0.5, "best_epoch": 0, "seconds": 1.0}', "No `base`"),
        ("[" * 10**5, "Expected JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_an_invalid_state_is_one_line(about, message, tmp_path):
    np.savez(tmp_path / "last.npz", about=about)
    with pytest.raises(UserError, match=f"last.npz: .*{message}.*Train again with --overwrite"):
        Checkpoints(tmp_path, []).load("last.npz")


@pytest.mark.parametrize("name", ["last.npz", "base-2.npz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: path.write_bytes(b"garbage"),
        lambda path: np.savez(path, a=1),
        lambda path: path.unlink(),
    ],
    ids=["empty", "cut", "garbage", "other arrays", "gone"],
)
def test_a_damaged_checkpoint_is_one_line(name, damage, variables, tmp_path):
    checkpoints = Checkpoints(tmp_path, variables)
    checkpoints.save_base(2)
    checkpoints.save(LAST, State(epoch=3), trained=set(), base=2)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}\b.*Train again with --overwrite\.$") as error:
        checkpoints.load(LAST)
    assert "\n" not in str(error.value)
