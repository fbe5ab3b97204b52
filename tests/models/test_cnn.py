"""The small network of the cnn branch."""

import keras
import numpy as np
import pytest

from emotion_tf.config import FaceConfig
from emotion_tf.models.cnn import build_cnn


@pytest.mark.parametrize("size", [6, 8, 10, 14, 18, 28])
def test_the_pooling_grid_covers_the_whole_face(size):
    frames = keras.Input((size, size, 3), dtype="uint8")
    model = keras.Model(frames, build_cnn(frames, FaceConfig(cnn_filters=(1,)), size))
    grid, cells = model.get_layer("cnn_grid"), size // 2
    for corner in ((0, 0), (cells - 1, cells - 1)):
        values = np.zeros((1, cells, cells, 1), np.float32)
        values[:, corner[0], corner[1]] = 1
        assert np.sum(grid(values)) > 0
    assert grid(values).shape[1:3] == ((3, 3) if cells == 3 else (2, 2))
