"""Says whether Keras' own `fit` trains with several hosts: a script, since each host is a process.

python keras_fit.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

if __name__ == "__main__":
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    try:
        model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=4, verbose=0)
        print("fit accepts it")
    except ValueError as error:
        print("fit refuses it:", "PerReplica" in str(error))
