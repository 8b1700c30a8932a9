"""Judges the candidate on the hold-out, and puts it beside the champion when there is one. Decides nothing: it
reports numbers, the gate decides.
"""

import json
import os
from pathlib import Path

import joblib

import table


def readings(folder):
    """Which of the hold-out's digits the model in this folder reads right."""
    pixels, labels = table.hold_out()
    return joblib.load(Path(folder, "model.joblib")).predict(pixels) == labels


def main():
    _, labels = table.hold_out()
    right = readings(Path(os.environ["REFIT_INPUTS"], "candidate"))
    share_by_digit = [right[labels == digit].mean() for digit in range(10)]
    worst = min(range(10), key=lambda digit: share_by_digit[digit])
    metrics = {"accuracy": right.mean(), "worst_digit": share_by_digit[worst]}
    outputs = {"held_out": len(labels), "weakest_digit": worst}
    print(f"candidate reads {right.sum()} of {len(labels)} digits right ({right.mean():.4f})")
    print(f"its weakest digit is {worst}: {share_by_digit[worst]:.2f} of them right")

    champion = os.environ.get("REFIT_CHAMPION")
    if champion:
        before = readings(Path(champion, "model"))
        outputs["newly_right"] = int((right & ~before).sum())
        outputs["newly_wrong"] = int((~right & before).sum())
        print(f"champion reads {before.sum()} right ({before.mean():.4f})")
        print(f"against it, {outputs['newly_right']} digits are newly right and {outputs['newly_wrong']} newly wrong")
    else:
        print("there is no champion to compare with")

    with open(os.environ["REFIT_METRICS"], "a") as file:
        for name, value in metrics.items():
            file.write(json.dumps({"name": name, "value": float(value)}) + "\n")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps(outputs) + "\n")


if __name__ == "__main__":
    main()
