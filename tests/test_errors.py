"""Error messages are one line of a bounded length."""

from emotion_tf.errors import MAX_LINE, shorten


def test_a_short_message_stays():
    assert shorten("Invalid `--k`.  Expected\na number.") == "Invalid `--k`. Expected a number."


def test_what_was_received_is_cut_in_the_middle():
    path = "/a/" + "x" * 5000 + "/z.csv"
    message = shorten(f"Cannot read the table {path}: File name too long. Expected a CSV file.")
    assert message.startswith("Cannot read the table /a/xxx") and "xxx/z.csv: File name too long." in message
    assert message.endswith("Expected a CSV file.") and "..." in message and len(message) < MAX_LINE


def test_many_words_are_cut_in_the_middle():
    message = shorten("Expected one of: " + "abc " * 200_000 + "end")
    assert len(message) == MAX_LINE and message.startswith("Expected one of: abc") and message.endswith("abc end")
    assert len(shorten("y" * 10**6)) <= MAX_LINE
