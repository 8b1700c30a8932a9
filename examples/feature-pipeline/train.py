"""Trains a candidate on all that the feature table holds by now."""

import json
import os
from pathlib import Path

import features
import model


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    with features.opened(params["store"]) as table:
        examples = features.examples(table, held_out=False)
    if not examples:
        raise SystemExit("nothing to train on: the table holds no visitor on two days in a row")
    weights = model.fit(examples, params["rounds"])
    model.save(weights, "propensity.json")  # declared under `artifacts:`
    print(f"trained on {len(examples)} days of visitors")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"examples": len(examples)}) + "\n")


if __name__ == "__main__":
    main()
