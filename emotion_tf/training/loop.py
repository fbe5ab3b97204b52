"""The training loop: each epoch is a function of (seed, epoch), ends with a checkpoint, and is validated on dev."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence

import numpy as np

from emotion_tf import config as configuration
from emotion_tf import files, locks, remote_folders
from emotion_tf.config import Config
from emotion_tf.errors import UserError
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.folders import RUN
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.runs.run import Run
from emotion_tf.training.average import averaged
from emotion_tf.training.checkpoint import LAST, Checkpoints, State, best_name
from emotion_tf.training.dropout_seeds import reseed_encoders
from emotion_tf.training.evaluate import calibrate
from emotion_tf.training.history import epoch_line, finished_state, write_epoch, write_hyperparameters
from emotion_tf.training.log import RunLog
from emotion_tf.training.losses import cross_entropy
from emotion_tf.training.phases import Stage, begin_phase, collect_dev, phases
from emotion_tf.training.progress import EpochProgress
from emotion_tf.training.replicas import check_same, of_host_0, this_host
from emotion_tf.training.setup import Say, Setup, TrainingData, build_setup, create_run, replica_line
from emotion_tf.training.step import Sums, zero_sums
from emotion_tf.wording import plural


def train(
    config: Config,
    run: Run,
    data: TrainingData,
    pretrained: PretrainedFiles,
    *,
    command: str,
    overwrite: bool = False,
    until: int = 0,
    save_model: bool = True,
    initial: Sequence[str] = (),
    later: float = 0.0,
    say: Say = print,
) -> State:
    """Trains a run. An unfinished run continues after its last finished epoch, with bit-identical results.

    The lock of the run is held. A run that is replaced is deleted when `model.keras` is written.

    Every device of the strategy of the scope trains, of all hosts that call this function. Host 0 writes the run; the
    others read its checkpoints, and return when it goes on alone.

    Args:
        config: the configuration.
        run: the run; its folder is created.
        data: utterances to train on, and to choose the best epoch by.
        pretrained: local files of pretrained networks.
        command: command line, stored with the run.
        overwrite: replace the folder of the run if it exists.
        until: stop after this many epochs in total; 0: no limit.
        save_model: write `model.keras` with the weights of the best epoch and remove the checkpoints. False: only train
            and checkpoint (for tuning).
        initial: sentences about the initial checkpoints (`check_unseen`), stored with the run.
        later: duration of all stages after the last epoch, as a multiple of a validation, for the time left.
        say: receives lines of progress.

    Raises:
        UserError: the data, the files or the options do not fit each other or the unfinished run; the loss is not
            finite; another process trains the run; the disk is full.
    """
    if not this_host().writes:
        if of_host_0(0) == (1,):
            return State()
        return _train(config, run, data, pretrained, command, overwrite, until, save_model, initial, later, say)
    with locks.writer(run.path):
        files.recover(run.path, RUN)
        is_finished = RUN.is_finished(run.path) and not overwrite
        of_host_0(is_finished)
        if is_finished:
            _check_same_data(config, run, data)
            run.delete_checkpoints()
            return finished_state(run)
        state = _train(config, run, data, pretrained, command, overwrite, until, save_model, initial, later, say)
        files.recover(run.path, RUN)
    return state


def _check_same_data(config: Config, run: Run, data: TrainingData) -> None:
    if run.spec != data.spec:
        raise UserError(
            f"{run.path} was trained on other data than {config.data} holds now. Expected the same data set to resume. "
            "Train again with --overwrite."
        )


def _digest(config: Config, data: TrainingData, run: Run) -> str:
    """Returns the hash of what has to be the same on all hosts."""
    about = f"{configuration.to_json(config)}{data.spec.data_sha256}{run.path.name}{data.train.group_bytes}"
    return hashlib.sha256(about.encode()).hexdigest()


def _train(
    config: Config,
    run: Run,
    data: TrainingData,
    pretrained: PretrainedFiles,
    command: str,
    overwrite: bool,
    until: int,
    save_model: bool,
    initial: Sequence[str],
    later: float,
    say: Say,
) -> State:
    host = this_host()
    resumes = run.checkpoints.is_dir() and not overwrite
    if resumes and host.writes:
        _check_same_data(config, run, data)
    (has_checkpoint,) = map(bool, of_host_0(resumes and (run.checkpoints / LAST).is_file()))
    check_same("the configuration or the data", _digest(config, data, run))
    say = log = RunLog(say)
    setup = build_setup(config, data, pretrained, say, run.word_dim if has_checkpoint else None)
    if host.replicas > 1:
        say(replica_line(setup))
    if not resumes and host.writes:
        create_run(run, setup, command, overwrite, initial)
        remote_folders.upload(run.path, is_new=True)
    if data.service:
        say(f"Training batches by the tf.data service at {data.service}: their order does not follow from the seed")
        run.record_service()
    if host.writes:
        log.open(run.path, command)
        write_hyperparameters(run, config)
    checkpoints = Checkpoints(run.checkpoints, setup.variables, host.writes)
    state = State()
    if has_checkpoint:
        state = checkpoints.load(LAST)
        reseed_encoders(setup.model, config.train.seed)  # a checkpoint has the seed of one replica
        check_same("the checkpoint", f"{state.epoch:012x}")
        say(
            f"Resumed after epoch {state.epoch} (best validation weighted F1 {state.best:.3f} in epoch "
            f"{state.best_epoch + 1})"
        )
    for phase in phases(setup):
        if state.epoch >= phase.end or _is_over(state, config, until):
            continue
        stage = begin_phase(setup, phase, checkpoints)
        if state.epoch > phase.first:
            checkpoints.load_optimizer(LAST, stage.optimizer)
        while state.epoch < phase.end and not _is_over(state, config, until):
            state = _train_epoch(stage, state, run, checkpoints, later)
    if state.epochs_since_best >= config.train.patience and state.epoch < config.train.epochs:
        say(f"Stopped early: {plural(state.epochs_since_best, 'epoch')} without a better validation weighted F1")
    if save_model and host.writes:
        _save_best(setup, run, checkpoints, state)
    return state


def _is_over(state: State, config: Config, until: int) -> bool:
    return state.epochs_since_best >= config.train.patience or 0 < until <= state.epoch


def _train_epoch(stage: Stage, state: State, run: Run, checkpoints: Checkpoints, later: float) -> State:
    """Fits, validates, records and checkpoints one epoch; returns the state after it. `later` is that of `train`."""
    epoch, began = state.epoch, time.monotonic()
    sums = _fit(stage, epoch)
    loss = sums.mean_loss
    _check_finite("loss", loss, stage, epoch)
    fitted = time.monotonic()
    with averaged(stage.average):
        scores = _validate(stage)
        _check_finite("loss on dev", scores["dev_loss"], stage, epoch)
        ended = time.monotonic()
        state = state.after_epoch(scores["dev_weighted_f1"], ended - began)
        if state.best_epoch == epoch:
            checkpoints.save(best_name(epoch), state, trained=stage.trained, base=stage.base)
    numbers = {
        "epoch": state.epoch,
        "loss": loss,
        "accuracy": sums.accuracy,
        **scores,
        "seconds": round(ended - began, 2),
        "utterances_per_second": round(stage.setup.steps * stage.setup.update_rows / (fitted - began), 1),
    }
    if checkpoints.writes:
        write_epoch(run, numbers)
    checkpoints.save(LAST, state, stage.optimizer, stage.trained, stage.base)
    checkpoints.delete_other_best(state)
    if checkpoints.writes:
        remote_folders.upload(run.path)
    # after it is on disk
    stage.setup.say(epoch_line(numbers, state, stage.setup.config.train.epochs, later * (ended - fitted)))
    return state


def _check_finite(name: str, loss: float, stage: Stage, epoch: int) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"The {name} became {loss} in epoch {epoch + 1}. Lower --train.learning-rate (now "
            f"{stage.setup.config.train.learning_rate})."
        )


def _fit(stage: Stage, epoch: int) -> Sums:
    """Runs the updates of one epoch; returns the total of their sums."""
    setup = stage.setup
    sums = zero_sums()
    shown = EpochProgress(epoch, setup.config.train.epochs, setup.steps, silent=not this_host().writes)
    with shown as progress:
        for batch in stage.train_batches(epoch):
            sums = stage.update(sums, *batch)
            progress.advance(sums)
    if not progress.step:
        raise ValueError("An epoch has no batch.")
    return sums


def _validate(stage: Stage) -> dict[str, float]:
    """Returns weighted loss, accuracy and F1 on dev. The loss is plain cross-entropy, whatever training minimises."""
    outputs = collect_dev(stage)
    predicted = outputs.logits.argmax(axis=1)
    return {
        "dev_loss": float(np.average(cross_entropy(outputs.label, outputs.logits), weights=outputs.weight)),
        "dev_accuracy": float(np.average(predicted == outputs.label, weights=outputs.weight)),
        "dev_weighted_f1": weighted_f1(outputs.label, predicted, outputs.weight),
    }


def _save_best(setup: Setup, run: Run, checkpoints: Checkpoints, state: State) -> None:
    """Loads the best epoch, calibrates on dev, writes `model.keras`, and removes the checkpoints."""
    checkpoints.load(best_name(state.best_epoch))
    for layer in setup.model.pretrained:
        layer.set_trainable(True)
    calibrate(run, setup.model, setup.preprocess, setup.data.dev, setup.infer)
    run.record_duration(state.seconds)
    with files.new_file(run.model_path) as temporary:
        setup.model.save(temporary)
    run.delete_checkpoints()
    remote_folders.upload(run.path)
