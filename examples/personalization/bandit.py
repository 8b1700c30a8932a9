"""A logistic bandit per segment, in plain Python: how likely a segment's users take an item that is shown first.

Each item of a segment has a weight and a precision (one over its variance), as in Chapelle and Li, "An Empirical
Evaluation of Thompson Sampling" (2011), algorithm 3: a batch moves the weights by regularised logistic regression, and
makes those that were tried more certain. Items are ranked by an optimistic weight, so that what was tried little is
shown again.
"""

import json
import math
from pathlib import Path

ITEMS = ("concert", "cinema", "museum", "match", "theatre")
OPTIMISM = 0.5  # standard deviations


def fresh() -> dict:
    """A segment of which nothing is known: every item is taken half of the time, or so one thinks."""
    return {item: {"weight": 0.0, "precision": 1.0} for item in ITEMS}


def chance(segment: dict, item: str) -> float:
    return 1 / (1 + math.exp(-segment[item]["weight"]))


def learn(segment: dict, shown: list) -> dict:
    """The segment after a batch of (item, taken): a new value, so that the same batch gives the same candidate again."""
    learned = {}
    for item, prior in segment.items():
        rewards = [taken for tried, taken in shown if tried == item]
        weight = prior["weight"]
        for _ in range(50):  # Newton's method on one weight: the prior pulls back, the rewards push
            p = 1 / (1 + math.exp(-weight))
            slope = prior["precision"] * (weight - prior["weight"]) + sum(p - taken for taken in rewards)
            weight -= slope / (prior["precision"] + len(rewards) * p * (1 - p))
        p = 1 / (1 + math.exp(-weight))
        learned[item] = {"weight": weight, "precision": prior["precision"] + len(rewards) * p * (1 - p)}
    return learned


def ranking(segment: dict) -> list:
    def optimistic(item):
        return segment[item]["weight"] + OPTIMISM / math.sqrt(segment[item]["precision"])

    return sorted(segment, key=optimistic, reverse=True)


def loss(segment: dict, shown: list) -> float:
    """Mean log loss of what was taken and what was not; less is better."""
    chances = [(chance(segment, item), taken) for item, taken in shown]
    return -sum(math.log(p if taken else 1 - p) for p, taken in chances) / len(chances)


def load(folder: str) -> dict:
    """The segments of a model by name; none when there is no model yet."""
    return json.loads(Path(folder, "segments").read_text()) if folder else {}
