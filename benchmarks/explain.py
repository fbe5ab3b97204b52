"""How long does it take to explain one utterance?

Command: `python -m benchmarks.explain RUN`. Explains a drawn face with a sentence of the demo's grammar, with all
checks, three times after the run is loaded; the first also warms TensorFlow up.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import reporting
from emotion_tf.quiet import start_tensorflow

LINE = "Adro said the party was really wonderful, and I am delighted."


def main() -> None:
    """Prints the seconds of each, and of the processor."""
    start_tensorflow()
    import numpy as np

    from emotion_tf.data import demo_faces
    from emotion_tf.interpret.batch import Scorer, Utterance
    from emotion_tf.interpret.explain import explain
    from emotion_tf.runs.run import Run

    began = time.perf_counter()
    scorer = Scorer(Run(Path(sys.argv[1])))
    print(f"loaded in {time.perf_counter() - began:.1f} s")
    rng = np.random.default_rng(0)
    who, shown = demo_faces.draw_identity(rng), demo_faces.draw_expression("joy", rng)
    drawn = demo_faces.Face(who, shown, demo_faces.draw_shot(rng))
    face = demo_faces.encode_face(drawn, scorer.run.spec.face_size)
    for _ in range(3):
        began, processor = time.perf_counter(), time.process_time()
        explain(scorer, [Utterance(LINE, [face])])
        print(f"{time.perf_counter() - began:.1f} s ({time.process_time() - processor:.1f} s of the processor)")


if __name__ == "__main__":
    reporting(main)
