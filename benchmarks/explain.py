"""Time of one explanation: `python -m benchmarks.explain RUN`.

Explains a drawn face with a sentence of the demo data set's grammar, with all checks, three times after the run is
loaded. Prints the seconds on the clock and of the processor; the first explanation includes TensorFlow's tracing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import Measure, make_parser, note_measures, run_benchmark
from emotion_tf.quiet import start_tensorflow

SENTENCE = "Adro said the party was really wonderful, and I am delighted."


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("run", type=Path)
    return arguments


def main() -> None:
    """Measures and prints the seconds of each explanation."""
    path = parser().parse_args().run
    start_tensorflow()
    import numpy as np

    from emotion_tf.data import demo_drawing, demo_faces
    from emotion_tf.interpret.batch import Scorer, Utterance
    from emotion_tf.interpret.explain import explain
    from emotion_tf.runs.run import Run

    start = time.perf_counter()
    scorer = Scorer(Run(path))
    print(f"loaded in {time.perf_counter() - start:.1f} s")
    rng = np.random.default_rng(0)
    identity, expression = demo_faces.sample_identity(rng), demo_faces.sample_expression("joy", rng)
    face = demo_faces.Face(identity, expression, demo_faces.sample_shot(rng))
    face_crop = demo_drawing.encode_face(face, scorer.run.spec.face_size)
    for _ in range(3):
        start, processor = time.perf_counter(), time.process_time()
        explain(scorer, [Utterance(SENTENCE, [face_crop])])
        seconds = f"{time.perf_counter() - start:.1f} s ({time.process_time() - processor:.1f} s of the processor)"
        print(seconds)
    note_measures([Measure("explanation, third", seconds)])


if __name__ == "__main__":
    run_benchmark(main)
