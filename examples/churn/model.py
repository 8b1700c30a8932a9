"""Gradient-boosted trees in plain Python (Friedman 2001, log loss): how likely a customer leaves.

A number is looked at by its place among 16 quantiles of the training rows, so that a tree is grown from counts and not from
sorted rows.
"""

import bisect
import json
import math
from pathlib import Path

NUMBERS = ("age", "tenure", "fee", "usage", "calls")
BINS = 16
STEP = 0.3  # how much of a tree's answer is taken over
FEWEST = 40  # rows that a leaf needs


def chance(score):
    return 1 / (1 + math.exp(-score))


def _signs(row, cuts):
    """What trees see of a customer: places of numbers, and how dear the plan is for what is used of it."""
    values = [*(row[name] for name in NUMBERS), row["fee"] / (row["usage"] + 1), ("basic", "plus", "family").index(row["plan"])]
    return [bisect.bisect(cut, value) for cut, value in zip(cuts, values)] if cuts else values


def _grow(rows, slopes, weights, depth):
    """A tree as a number, or as a sign, its greatest place that goes left, and two trees."""
    slope, weight = sum(slopes), sum(weights)
    best = None
    if depth > 0:
        for sign in range(len(rows[0])):
            counts, sums, masses = [0] * (BINS + 1), [0.0] * (BINS + 1), [0.0] * (BINS + 1)
            for row, one, mass in zip(rows, slopes, weights):
                place = row[sign]
                counts[place] += 1
                sums[place] += one
                masses[place] += mass
            count = left = mass = 0.0
            for place in range(BINS):
                count, left, mass = count + counts[place], left + sums[place], mass + masses[place]
                if count < FEWEST or len(rows) - count < FEWEST:
                    continue
                gain = left**2 / (mass + 1) + (slope - left) ** 2 / (weight - mass + 1)
                if best is None or gain > best[0]:
                    best = (gain, sign, place)
    if best is None or best[0] <= slope**2 / (weight + 1):
        return slope / (weight + 1)
    _, sign, place = best
    sides = []
    for side in (True, False):
        kept = [at for at, row in enumerate(rows) if (row[sign] <= place) == side]
        parts = ([source[at] for at in kept] for source in (rows, slopes, weights))
        sides.append(_grow(*parts, depth - 1))
    return [sign, place, *sides]


def _answer(tree, signs):
    while isinstance(tree, list):
        sign, place, left, right = tree
        tree = left if signs[sign] <= place else right
    return tree


def fit(customers, depth, rounds):
    values = [_signs(row, None) for row in customers]
    cuts = []
    for column in zip(*values):
        ordered = sorted(column)
        cuts.append(sorted({ordered[len(ordered) * place // BINS] for place in range(1, BINS)}))
    rows = [_signs(row, cuts) for row in customers]
    left = [row["churned"] for row in customers]
    base = math.log(sum(left) / (len(left) - sum(left)))
    scores, trees = [base] * len(rows), []
    for _ in range(rounds):
        chances = [chance(score) for score in scores]
        slopes = [truth - one for truth, one in zip(left, chances)]
        tree = _grow(rows, slopes, [one * (1 - one) for one in chances], depth)
        scores = [score + STEP * _answer(tree, row) for score, row in zip(scores, rows)]
        trees.append(tree)
    return {"base": base, "cuts": cuts, "trees": trees}


def score(model, customer):
    """The probability that a customer leaves."""
    signs = _signs(customer, model["cuts"])
    return chance(model["base"] + STEP * sum(_answer(tree, signs) for tree in model["trees"]))


def log_loss(model, customers):
    return -sum(
        math.log(score(model, row) if row["churned"] else 1 - score(model, row)) for row in customers
    ) / len(customers)


def save(model, path):
    Path(path).write_text(json.dumps(model))


def load(path):
    return json.loads(Path(path).read_text())
