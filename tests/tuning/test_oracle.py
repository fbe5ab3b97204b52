"""The state of a search on disk: an edit that breaks a rule is one line."""

from __future__ import annotations

import json

import pytest

from emotion_tf.errors import UserError
from tuning import oracle


def build(tmp_path):
    return oracle.build(
        "random", lambda space: space.Choice("kind", ["a", "b"]), 3, 4, 0, tmp_path / "oracle.json", "plan"
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("trials", None, "`trials`. Expected a list"),
        ("trials.0.status", "DONE", "`trials[0].status`. Expected 'RUNNING'"),
        ("trials.0.score", float("nan"), "`trials[0].score`. Expected a finite number. Received: nan"),
        ("trials.0.hyperparameters", {}, "Invalid state of a search (KeyError"),
        ("reports", [], "`reports`. Expected an object"),
        ("end_order", ["7"], "`end_order`. Expected trials. Received: '7'"),
        ("retrained", {"0": "x"}, "`retrained.0`. Expected a number"),
        ("hyperparameters", None, "Invalid state of a search (TypeError"),
        ("seed_state", KeyError, "Invalid state of a search (KeyError"),
    ],
)
def test_an_edited_state_of_a_search_is_one_line(field, value, message, tmp_path):
    first = build(tmp_path)
    first.create_trial("w0")
    first.save()
    state = json.loads((tmp_path / "oracle.json").read_text())
    *parents, last = (int(key) if key.isdigit() else key for key in field.split("."))
    part = state
    for key in parents:
        part = part[key]
    if value is KeyError:
        del part[last]
    else:
        part[last] = value
    (tmp_path / "oracle.json").write_text(json.dumps(state))
    with pytest.raises(UserError) as error:
        build(tmp_path).reload()
    assert str(error.value).startswith(f"{tmp_path / 'oracle.json'}: ") and message in str(error.value)
    (tmp_path / "oracle.json").write_text("[" * 10**5)
    with pytest.raises(UserError, match="oracle.json: Expected JSON"):
        build(tmp_path).reload()
