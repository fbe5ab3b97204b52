"""The small network of the `cnn` branch, trained from scratch."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf.config import FaceConfig
from emotion_tf.models.face_layers import FaceBatchNormalization, FaceCount, count_faces


def build_cnn(
    frames: keras.KerasTensor, config: FaceConfig, face_size: int, faces: FaceCount | None = None
) -> keras.KerasTensor:
    """Builds a small VGG-like network with batch norm; each stage halves the image: (N, H, W, 3) -> (N, D)."""
    x = layers.Rescaling(1 / 127.5, offset=-1, name="cnn_rescale")(frames)
    for i, filters in enumerate(config.cnn_filters):
        # a single convolution at full size, where it accounts for half of the cost
        for j in range(2 if i else 1):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"cnn_{i}_conv_{j}")(x)
            norm = FaceBatchNormalization(momentum=0.9, name=f"cnn_{i}_norm_{j}")
            count_faces(norm, faces)
            x = norm(x)
            x = layers.Activation("relu", name=f"cnn_{i}_relu_{j}")(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"cnn_{i}_pool")(x)
    # a grid of 2 x 2 (3 x 3 of three cells) preserves positions on the face: brows above, mouth below
    cell = -(-face_size // 2 ** len(config.cnn_filters))
    if cell >= 2:
        # with an odd number of cells, the middle ones belong to both halves
        size = cell - cell // 2 if cell > 3 else 1
        x = layers.AveragePooling2D(size, strides=cell // 2, name="cnn_grid")(x)
    return layers.Flatten(name="cnn")(x)
