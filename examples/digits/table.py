"""Plays the warehouse table that the labelling team fills: handwritten digits with their labels.

The digits are real (scikit-learn's copy of the UCI test set: 1,797 scans of 8 by 8 pixels) and need no network.
An event says which rows were labelled and how its job materialised them. `labels: shuffled` is a defect upstream: a
join that lost the row order, so that each label is real but belongs to another row. Only this file knows the
difference; training sees rows and labels, as it would in earnest.
"""

import numpy as np
from sklearn.datasets import load_digits

HOLD_OUT = range(1397, 1797)  # never trained on: every model is judged on these same 400 digits


def _table():
    pixels, labels = load_digits(return_X_y=True)
    return pixels / 16.0, labels


def labelled(event):
    """The rows that one `digits.labelled` event brought: their numbers, pixels and labels."""
    data = event["data"]
    rows = np.arange(data["from"], data["to"])
    if len(rows) == 0 or rows[0] < 0 or rows[-1] >= HOLD_OUT.start:
        raise ValueError(f"event {event['id']}: rows {data['from']} to {data['to']} are not training rows")
    pixels, labels = _table()
    labels = labels[rows]
    if data.get("labels") == "shuffled":
        labels = np.random.default_rng(len(rows)).permutation(labels)
    return rows, pixels[rows], labels


def hold_out():
    """Pixels and true labels of the digits every model is judged on."""
    pixels, labels = _table()
    return pixels[HOLD_OUT], labels[HOLD_OUT]
