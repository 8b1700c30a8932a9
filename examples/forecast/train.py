"""Trains a candidate on all hours before the last four weeks."""

import json
import os
from pathlib import Path

import model
import readings


def main():
    known, _ = readings.read(Path(os.environ["REFIT_INPUTS"], "readings"))
    weights = model.fit(known, float(os.environ["PARAM_RIDGE"]))
    model.save(weights, "forecast.json")  # declared under `artifacts:`
    print(f"trained on {len(known)} hours, until {known[-1]['time']}")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"hours": len(known)}) + "\n")


if __name__ == "__main__":
    main()
