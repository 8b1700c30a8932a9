"""Ridge regression in plain Python: the demand of an hour, by the hour, the weekday and the weather."""

import json
import math
from pathlib import Path


def _signs(row):
    turns = [2 * math.pi * row["hour"] * times / 24 for times in (1, 2, 3, 4)]
    waves = [wave(turn) for turn in turns for wave in (math.sin, math.cos)]
    weather = [max(0.0, 15 - row["temperature"]), max(0.0, row["temperature"] - 21)]
    return [1.0, *waves, row["weekend"], *(row["weekend"] * wave for wave in waves), *weather]


def fit(rows, ridge):
    """The weights that solve the normal equations, by elimination."""
    size = len(_signs(rows[0]))
    system = [[ridge * (line == column) for column in range(size)] + [0.0] for line in range(size)]
    for row in rows:
        signs = _signs(row)
        for line, sign in enumerate(signs):
            if sign:
                into = system[line]
                for column, other in enumerate(signs):
                    into[column] += sign * other
                into[size] += sign * row["demand"]
    for pivot in range(size):  # symmetric and, with a ridge, positive definite: no exchange of lines is needed
        head = system[pivot]
        for line in range(pivot + 1, size):
            share = system[line][pivot] / head[pivot]
            system[line] = [one - share * other for one, other in zip(system[line], head)]
    weights = [0.0] * size
    for line in reversed(range(size)):
        known = sum(system[line][column] * weights[column] for column in range(line + 1, size))
        weights[line] = (system[line][size] - known) / system[line][line]
    return weights


def forecast(weights, row):
    return sum(weight * sign for weight, sign in zip(weights, _signs(row)))


def save(weights, path):
    Path(path).write_text(json.dumps(weights))


def load(path):
    return json.loads(Path(path).read_text())
