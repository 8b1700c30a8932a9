"""Logistic regression in plain Python: how likely a visitor buys tomorrow, by what they did today."""

import json
import math
from pathlib import Path


def score(weights: list, day: tuple) -> float:
    """The probability that the visitor of this day buys on the next."""
    signs = [1.0, *(math.log1p(count) for count in day)]
    return 1 / (1 + math.exp(-sum(weight * sign for weight, sign in zip(weights, signs))))


def fit(examples: list, rounds: int) -> list:
    """Weights by gradient descent on the log loss; the first is the intercept."""
    weights = [0.0] * 4
    for _ in range(rounds):
        slope = [0.0] * 4
        for day, bought in examples:
            wrong = score(weights, day) - bought
            for place, sign in enumerate([1.0, *(math.log1p(count) for count in day)]):
                slope[place] += wrong * sign / len(examples)
        weights = [weight - 0.5 * down for weight, down in zip(weights, slope)]
    return weights


def auc(weights: list, examples: list) -> float:
    """How often a day before a purchase scores higher than a day before none; ties count half."""
    yes = [score(weights, day) for day, bought in examples if bought]
    no = [score(weights, day) for day, bought in examples if not bought]
    return sum((one > other) + 0.5 * (one == other) for one in yes for other in no) / (len(yes) * len(no))


def save(weights: list, path: str):
    Path(path).write_text(json.dumps(weights))


def load(path: Path) -> list:
    return json.loads(path.read_text())
