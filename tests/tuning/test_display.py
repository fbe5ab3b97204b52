"""The live table of a search."""

from types import SimpleNamespace

from rich.console import Console

from tuning.display import SearchDisplay


def test_control_characters_of_an_error_are_escaped():
    trial = SimpleNamespace(trial_id="0", status="INVALID", score=None, hyperparameters=SimpleNamespace(values={}))
    report = {"error": "No file: \x1b]0;a\x07\u202eb", "score": None, "epochs": 0, "seconds": 1.0}
    oracle = SimpleNamespace(ended_trials=[trial], reports={"0": report})
    console = Console(width=120)
    with console.capture() as capture:
        console.print(SearchDisplay(oracle, [], 2)._table([trial], {}))
    assert r"No file: \x1b]0;a\x07\u202eb" in capture.get()
