"""Predicts by a client in a process of its own: `light_client.py ADDRESS CA AUTHORIZATION MODEL.JSON CROP PHOTO`.

Run without an environment of its own, it hides each package that the client's distribution does not need.
"""

import json
import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements(name):
    return {re.split(r"[^\w.-]", line)[0] for line in metadata.requires(name) or () if "extra ==" not in line}


def normalize(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def hide_others(needed):
    """Lets imports of all packages fail but of these, and of those that they need."""
    allowed, waiting = set(), list(needed)
    while waiting:
        name = normalize(waiting.pop())
        if name not in allowed:
            allowed.add(name)
            try:
                waiting += requirements(name)
            except metadata.PackageNotFoundError:
                continue  # for another Python or system
    for module, distributions in metadata.packages_distributions().items():
        if not allowed & {normalize(name) for name in distributions}:
            sys.modules.setdefault(module, None)


def main():
    address, ca, authorization, facts, crop, photo = sys.argv[1:]
    try:
        metadata.distribution("emotion_tf_client")
    except metadata.PackageNotFoundError:
        project = (ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8")
        hide_others(re.findall(r'^    "([\w.-]+)[><=]', project, re.MULTILINE))
        sys.path.insert(0, str(ROOT))
    from emotion_tf.faces.detect import load_detector
    from emotion_tf.runs.facts import read_facts
    from emotion_tf.serving.client import Client

    options = {"ca": Path(ca) if ca else None, "authorization": authorization, "timeout": 60}
    client = Client(address, read_facts(Path(facts)), "untrained", detect=load_detector("yunet"), **options)
    predictions = [
        client.predict(["Yes, no!", "", "Well."], [None, crop, [crop, crop]]),
        client.predict_photos(["Well."], [photo]),
    ]
    assert client.wait_until_ready(10) and not [name for name in ("tensorflow", "keras") if sys.modules.get(name)]
    print(json.dumps([[p.label, p.probabilities.tolist()] for p in predictions]))


if __name__ == "__main__":
    main()
