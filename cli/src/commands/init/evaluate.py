"""Judges the candidate on data it has not seen, and puts it beside the champion when there is one. Decides nothing: it
reports numbers, the gate decides.
"""

import json
import os
from pathlib import Path

import train

HOLD_OUT = list(train.make(rows=2000, seed="hold-out"))


def judge(file):
    """The share of the hold-out that the model in this file gets right, and its mean loss."""
    model = json.loads(Path(file).read_text())
    right = sum((train.predict(model, row) > 0.5) == bool(label) for row, label in HOLD_OUT)
    return {
        "accuracy": right / len(HOLD_OUT),
        "log_loss": sum(train.losses(model, HOLD_OUT)) / len(HOLD_OUT),
    }


def main():
    candidate = judge(Path(os.environ["REFIT_INPUTS"], "candidate"))
    print(f"candidate: accuracy {candidate['accuracy']:.4f}")
    champion = os.environ.get("REFIT_CHAMPION")  # unset when there is no champion yet
    if champion:
        before = judge(Path(champion, "model"))
        print(f"champion:  accuracy {before['accuracy']:.4f}")
    with open(os.environ["REFIT_METRICS"], "a") as metrics:
        for name, value in candidate.items():
            metrics.write(json.dumps({"name": name, "value": value}) + "\n")


if __name__ == "__main__":
    main()
