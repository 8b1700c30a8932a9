"""Trains a candidate: logistic regression by gradient descent, in plain Python.

The data is made up here, so that this runs anywhere. Read your own instead; what started the run stands in the file
$REFIT_EVENTS, one event a line.
"""

import json
import math
import os
import random
from pathlib import Path

WEIGHTS = [1.5, -2.0, 1.0, 0.5]  # how the made-up world works; what training is to find out


def make(rows, seed):
    """Rows of four numbers and a label that they explain, but for some noise."""
    chance = random.Random(seed)
    for _ in range(rows):
        row = [chance.gauss(0, 1) for _ in WEIGHTS]
        score = sum(weight * value for weight, value in zip(WEIGHTS, row)) + chance.gauss(0, 0.7)
        yield row, int(score > 0)


def predict(model, row):
    """How likely the label is 1."""
    score = model["bias"] + sum(weight * value for weight, value in zip(model["weights"], row))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def losses(model, data):
    for row, label in data:
        likely = predict(model, row) if label else 1 - predict(model, row)
        yield -math.log(max(likely, 1e-12))


def report(name, value, step):
    """Hands Refit one point of a metric; it is shown while the step runs."""
    with open(os.environ["REFIT_METRICS"], "a") as metrics:
        metrics.write(json.dumps({"name": name, "value": value, "step": step}) + "\n")


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    data = list(make(params["rows"], params["seed"]))
    model = {"bias": 0.0, "weights": [0.0] * len(WEIGHTS)}
    for epoch in range(1, params["epochs"] + 1):
        for row, label in data:
            error = 0.05 * (label - predict(model, row))
            model["bias"] += error
            model["weights"] = [weight + error * value for weight, value in zip(model["weights"], row)]
        if epoch % 10 == 0 or epoch == params["epochs"]:
            loss = sum(losses(model, data)) / len(data)
            report("loss", loss, epoch)
            print(f"epoch {epoch:>3}: loss {loss:.4f}", flush=True)
    Path("model.json").write_text(json.dumps(model))  # declared under `artifacts:`


if __name__ == "__main__":
    main()
