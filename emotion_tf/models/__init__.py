"""The models. Importing the package registers every layer that a `model.keras` may hold."""

from emotion_tf.models import two_tower as two_tower
