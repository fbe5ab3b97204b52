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


def test_the_live_table_cuts_no_value(monkeypatch):
    """At 80 and 60 columns; the values of the best trial are whole."""
    searched = [SimpleNamespace(option="train.learning_rate"), SimpleNamespace(option="fusion.kind")]
    values = {"train.learning_rate": 0.00312345, "fusion.kind": "cross_attention"}
    trials = [
        SimpleNamespace(
            trial_id=f"{n:02d}", status="COMPLETED", score=0.5, hyperparameters=SimpleNamespace(values=values)
        )
        for n in range(3)
    ]
    reports = {trial.trial_id: {"error": "", "epochs": 2, "seconds": 1234.5, "score": 0.5} for trial in trials}
    oracle = SimpleNamespace(ended_trials=trials[:2], reports=reports)
    for width in (120, 80, 60, 42):
        display = SearchDisplay(oracle, searched, 30)
        display.live.console = console = Console(width=width)
        with console.capture() as capture:
            console.print(display._table(trials[:2], {"worker0": trials[2]}))
        lines = capture.get().splitlines()
        assert max(map(len, lines)) <= width
        words = " ".join(lines).replace("│", " ").split()
        allowed = {"learning_rate=0.00312", "fusion.kind=cross_attention", "0.5000", "running"}
        assert allowed <= set(words) and all(word in allowed for word in words if "=" in word)
        assert not any(word.endswith("…") for word in words if word != "…")
