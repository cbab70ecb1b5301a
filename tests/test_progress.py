"""The progress bar, in a pipe (a terminal's is tqdm's own)."""

import logging

from tinygen.progress import bar


def test_where_nothing_can_be_drawn_over_each_drawing_is_a_line(capsys):
    with bar(4, "sampling", unit="set", done=1) as progress:
        logging.getLogger("tinygen.test").warning("a word in between")
        progress.update(3)
    out, err = capsys.readouterr()
    first, word, last, end = err.split("\n")
    assert "sampling:  25%" in first and word == "a word in between" and "4/4" in last and end == ""
    assert not out and "\r" not in err


def test_a_bar_that_is_not_shown_says_nothing(capsys):
    with bar(4, "sampling", shown=False) as progress:
        progress.update(4)
    assert capsys.readouterr() == ("", "")
