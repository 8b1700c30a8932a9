"""A model of text: how likely each letter is after the few letters before it, counted. Plain Python.

`smoothing` is added to every count, so that what was never seen is unlikely and not impossible.
"""

import json
import math

from text import LETTERS

SIZE = len(LETTERS) + 1


def fit(texts, order, smoothing):
    """Counts what follows each run of `order` letters."""
    counts = {}
    for text in texts:
        for end in range(order, len(text)):
            after = counts.setdefault(text[end - order : end], {})
            after[text[end]] = after.get(text[end], 0) + 1
    return {"order": order, "smoothing": smoothing, "counts": counts}


def judge(model, text):
    """Bits per letter (fewer are better), and the share of letters that the model would have guessed first.

    Infinite bits: something occurs that the model holds for impossible.
    """
    order, smoothing, counts = model["order"], model["smoothing"], model["counts"]
    sums = {before: sum(after.values()) for before, after in counts.items()}
    guesses = {before: max(after, key=after.get) for before, after in counts.items()}
    bits = hits = 0
    for end in range(order, len(text)):
        before, letter = text[end - order : end], text[end]
        seen = counts.get(before, {}).get(letter, 0) + smoothing
        if seen == 0:
            return math.inf, 0.0
        bits -= math.log2(seen / (sums.get(before, 0) + smoothing * SIZE))
        hits += guesses.get(before) == letter
    return bits / (len(text) - order), hits / (len(text) - order)


def save(model, path):
    with open(path, "w") as file:
        json.dump(model, file)


def load(path):
    with open(path) as file:
        return json.load(file)
