"""The text that models learn from: the reference topics of Python's own manual, which every Python brings along.

Real prose and code, about half a megabyte, without a download. `pydoc_data` differs a little between versions of
Python, and so do the numbers; nothing else depends on it.
"""

from pydoc_data.topics import topics

LETTERS = "\n" + "".join(map(chr, range(32, 127)))  # whatever else occurs counts as one letter more
OTHER = "\ufffd"


def _part(remainders):
    names = sorted(topics)
    return [_plain(topics[name]) for place, name in enumerate(names) if place % 4 in remainders]


def _plain(text):
    return "".join(letter if letter in LETTERS else OTHER for letter in text)


def training(count):
    """The first `count` topics to train on; all of them if there are fewer."""
    return _part((0, 1))[:count]


def validation():
    """What the instances of a sweep are compared on. Never trained on."""
    return "\n".join(_part((2,)))


def hold_out():
    """What candidate and champion are judged on. Never trained on, and no instance was chosen by it."""
    return "\n".join(_part((3,)))
