"""Attributions of pixels: maps by hand, completeness, and a mouth that must have the largest values."""

import dataclasses

import cv2
import keras
import numpy as np
import pytest

from emotion_tf.config import FaceConfig, TrainConfig
from emotion_tf.data import demo_drawing, demo_faces
from emotion_tf.errors import UserError
from emotion_tf.interpret import face
from emotion_tf.interpret.batch import Batch, Scorer, Utterance, scores
from emotion_tf.interpret.gradients import resize_maps

RNG = np.random.default_rng(0)
SIDE = 32


def crops(count, side=SIDE):
    return [RNG.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def linear(initialised, small_config, tmp_path_factory):
    """A face tower whose network is one linear convolution, averaged over the positions, then logits."""
    picture = keras.Input((SIDE, SIDE, 3))
    maps = keras.layers.Conv2D(3, 8, strides=8, use_bias=False, name="maps")(picture)
    path = tmp_path_factory.mktemp("network") / "linear.keras"
    keras.Model(picture, maps).save(path)
    config = dataclasses.replace(
        small_config,
        towers=("face",),
        face=FaceConfig(("encoder",), encoder=str(path)),
        fusion=dataclasses.replace(small_config.fusion, dense_units=()),
    )
    return Scorer(initialised(config, face_files={"encoder": str(path)}))


def test_grad_cam_of_a_linear_model_by_hand(linear):
    pictures = crops(3)
    utterances = [linear.normalize(Utterance("", faces)) for faces in (pictures[:1], pictures[1:])]
    batch = Batch(linear, utterances, watched=face.select_cam_layers(linear))
    assert list(batch.features) == ["encoder/maps"]
    network = linear.model.towers["face"].find_layer("encoder")
    pixels, owner = face.real_crops(batch)
    assert owner.tolist() == [0, 1, 1]
    feature = np.asarray(network.get_layer("maps")(pixels / np.float32(255)))
    kernel = np.asarray(linear.model.fusion.get_layer("logits").kernel)
    weights = (kernel - kernel.mean(axis=1, keepdims=True))[:, batch.target].T  # of the score, not the logit
    expected = np.maximum((feature * weights[owner][:, None, None]).sum(axis=-1), 0)
    for cam in (face.grad_cam, face.hires_cam):
        maps = cam(batch, "encoder/maps")
        assert [face_map.values.shape for face_map in maps] == [(1, SIDE, SIDE), (2, SIDE, SIDE)]
        for n, face_map in enumerate(maps):
            large = np.asarray(resize_maps(expected[owner == n], SIDE))
            np.testing.assert_allclose(face_map.values / face_map.values.max(), large / large.max(), atol=1e-4)
    kinds = [face_map.key.split()[0] for face_map in face.drop_duplicates(face.face_maps(batch)[0])]
    assert kinds == ["grad_cam", "gradients"]  # after global average pooling both maps are equal


def test_a_linear_model_needs_no_further_steps(linear):
    utterances = [linear.normalize(Utterance("", crops(2))), linear.normalize(Utterance("", crops(1)))]
    batch = Batch(linear, utterances)
    maps = face.pixel_gradients(batch)
    for face_map in maps:
        completeness = face_map.completeness
        assert completeness.holds and completeness.steps == 8 and completeness.residual < 1e-3
        assert face_map.values.sum() == pytest.approx(completeness.delta, rel=1e-3)
    soft = [
        [np.round(c).astype(np.uint8) for c in face.blur(face.real_crops(batch)[0])[rows]] for rows in ([0, 1], [2])
    ]
    blurred = Batch(linear, [linear.normalize(Utterance("", faces)) for faces in soft], batch.target)
    change = np.asarray(scores(batch.logits, batch.target) - scores(blurred.logits, batch.target))
    assert [face_map.completeness.delta for face_map in maps] == pytest.approx(change.tolist(), abs=0.01)


@pytest.fixture(scope="module")
def cnn(untrained):
    from emotion_tf.runs.run import Run

    return Scorer(Run(untrained))


def test_the_pixels_of_a_network_sum_to_the_effect_of_the_face(cnn):
    utterances = [
        cnn.normalize(Utterance("Yes!", crops(2))),
        cnn.normalize(Utterance("No.")),
        cnn.normalize(Utterance("", crops(1))),
    ]
    batch = Batch(cnn, utterances, watched=face.select_cam_layers(cnn))
    maps = face.face_maps(batch)
    assert [len(of_row) for of_row in maps] == [3, 0, 3]
    assert [face_map.key for face_map in maps[0]] == ["hires_cam cnn_1_relu_1", "grad_cam cnn_1_relu_1", "gradients"]
    for of_row in (maps[0], maps[2]):
        assert all(np.isfinite(face_map.values).all() for face_map in of_row) and (of_row[0].values >= 0).all()
        completeness = of_row[2].completeness
        assert completeness.holds
        assert of_row[2].values.sum() == pytest.approx(
            completeness.delta, abs=max(0.01 * abs(completeness.delta), 1e-3)
        )
    alone = face.face_maps(Batch(cnn, utterances[:1], watched=list(batch.features)))[0]
    for first, second in zip(alone, maps[0], strict=True):  # independent of the rest of the batch
        np.testing.assert_allclose(first.values, second.values, atol=1e-5)


def test_the_pixels_of_two_branches_sum_to_the_effect_of_the_face(initialised, small_config, linear):
    """Each branch gathers the crops itself, so their lines move together."""
    path = linear.run.config.face.encoder
    tower = FaceConfig(("cnn", "encoder"), encoder=path, cnn_filters=(4, 8))
    config = dataclasses.replace(small_config, face=tower)
    scorer = Scorer(initialised(config, face_files={"encoder": path}))
    utterances = [
        scorer.normalize(Utterance("Yes!", crops(2))),
        scorer.normalize(Utterance("No.")),
        scorer.normalize(Utterance("", crops(1))),
    ]
    batch = Batch(scorer, utterances, watched=face.select_cam_layers(scorer))
    assert list(batch.features) == ["cnn_1_relu_1", "encoder/maps"]
    soft = iter(np.round(face.blur(face.real_crops(batch)[0])).astype(np.uint8))
    blurred = [scorer.normalize(Utterance(row.text, [next(soft) for _ in row.faces])) for row in utterances]
    change = scores(batch.logits, batch.target) - scores(scorer.logits(blurred), batch.target)
    for face_map, delta in zip(face.pixel_gradients(batch), np.asarray(change), strict=True):
        assert face_map.completeness.holds and face_map.completeness.delta == pytest.approx(delta, abs=0.002)
        assert face_map.values.sum() == pytest.approx(face_map.completeness.total, abs=1e-4)
    assert abs(change[0]) > 0.01 > abs(change[1])


def test_an_utterance_without_a_face(cnn):
    batch = Batch(cnn, [cnn.normalize(Utterance("Yes!"))], watched=face.select_cam_layers(cnn))
    assert face.face_maps(batch) == [[]] and face.crop_weights(batch) == [None]


def test_attention_over_positions_and_crops(initialised, small_config, linear):
    path = linear.run.config.face.encoder
    tower = FaceConfig(("encoder",), encoder=path, pooling="attention", frames="attention")
    config = dataclasses.replace(small_config, towers=("face",), face=tower)
    scorer = Scorer(initialised(config, face_files={"encoder": path}))
    batch = Batch(scorer, [scorer.normalize(Utterance("", crops(3))), scorer.normalize(Utterance("", crops(1)))])
    (maps,) = face.attention_maps(batch)
    assert [face_map.values.shape for face_map in maps] == [(3, SIDE, SIDE), (1, SIDE, SIDE)]
    assert maps[0].values.mean() == pytest.approx(1 / 16, rel=0.2)
    weights = face.crop_weights(batch)
    assert [w.sum() for w in weights] == pytest.approx([1, 1], abs=1e-5) and [len(w) for w in weights] == [3, 1]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("cnn_1_reIu_1", "No layer 'cnn_1_reIu_1'.*Did you mean 'cnn_1_relu_1'"),
        ("cnn", "returns a map of each crop, such as cnn_1"),
    ],
)
def test_a_layer_that_returns_no_map(cnn, layer, message):
    with pytest.raises(UserError, match=message):
        face.select_cam_layers(cnn, layer)
    assert face.select_cam_layers(cnn, "cnn_0_relu_0") == ["cnn_0_relu_0"]


def plain_shot(rng):
    """A frontal shot in even light without occlusion, so that the mouth is learned fast."""
    plain = dict.fromkeys(("yaw", "roll", "shift_x", "shift_y", "blur", "gradient"), 0.0)
    return dataclasses.replace(demo_faces.sample_shot(rng), **plain, scale=1.0, gain=1.0, occlusion=0)


def mouth_only(rng):
    """A neutral expression with the mouth of joy: its curve, opening, width and teeth."""
    parts = {"neutral": demo_faces.sample_expression("neutral", rng), "joy": demo_faces.sample_expression("joy", rng)}
    mouth = ("mouth_curve", "mouth_open", "mouth_width", "teeth")
    return dataclasses.replace(parts["neutral"], **{name: getattr(parts["joy"], name) for name in mouth})


@pytest.fixture(scope="module")
def smiles(tmp_path_factory, make_records):
    """A data set of drawn faces in which joy and neutral differ in the mouth alone."""
    folder, rng = tmp_path_factory.mktemp("smiles"), np.random.default_rng(5)
    kinds = ("neutral", "joy")
    lines = ["split,dialogue_id,utterance_id,speaker,utterance,emotion,faces"]
    for n in range(600):
        kind, split = kinds[n % 2], "train" if n < 480 else "dev" if n < 560 else "test"
        expression = mouth_only(rng) if kind == "joy" else demo_faces.sample_expression(kind, rng)
        drawn = demo_faces.Face(demo_faces.sample_identity(rng), expression, plain_shot(rng))
        (folder / f"{n}.jpg").write_bytes(demo_drawing.encode_face(drawn, 48))
        lines.append(f"{split},{n},0,Ada,,{kind},{n}.jpg")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return make_records(folder / "manifest.csv", folder / "records", 48, 50)


def smile(seed):
    """Returns a face of joy, RGB uint8 (48, 48, 3), and the mask of its mouth, bool (48, 48)."""
    rng = np.random.default_rng([9, seed])
    who, shot, joy = demo_faces.sample_identity(rng), plain_shot(rng), mouth_only(rng)
    closed = dataclasses.replace(joy, mouth_curve=0.0, mouth_open=0.0, mouth_width=1.0, teeth=0.0)
    happy, other = (
        demo_drawing.render_face(demo_faces.Face(who, expression, shot), 48) for expression in (joy, closed)
    )
    changed = np.abs(happy.astype(int) - other).sum(axis=-1) > 30
    return happy[..., ::-1].copy(), cv2.dilate(changed.astype(np.uint8), np.ones((5, 5))).astype(bool)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "rate"),
    [
        (FaceConfig(cnn_filters=(16, 32, 64), augment=False), 2e-3),
        (FaceConfig(("resnet50",), weights="none", layer=("conv2_block1_out",), augment=False), 3e-3),
    ],
    ids=["cnn", "resnet50"],
)
def test_the_mouth_has_the_largest_values_if_it_alone_differs(tower, rate, smiles, trained):
    train = TrainConfig(epochs=15, patience=15, learning_rate=rate, batch_size=16)
    scorer = Scorer(trained(smiles, towers=("face",), face=tower, train=train))
    pictures, mouths = zip(*(smile(seed) for seed in range(12)), strict=True)
    utterances = [scorer.normalize(Utterance("", [picture])) for picture in pictures]
    batch = Batch(scorer, utterances, watched=face.select_cam_layers(scorer))
    assert (batch.target == scorer.run.labels.index("joy")).all()  # the model must have learned it
    for maps in zip(*face.face_maps(batch), strict=True):
        values = np.maximum(np.concatenate([face_map.values for face_map in maps]), 0)
        share = np.mean([v[mouth].sum() / v.sum() for v, mouth in zip(values, mouths, strict=True)])
        assert share > 3 * np.mean(mouths), (maps[0].key, share)
