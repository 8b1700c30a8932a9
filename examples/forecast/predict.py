"""What candidate and champion forecast for the last four weeks: a row an hour, for `evaluate` to count."""

import csv
import os
from pathlib import Path

import model
import readings

PARTS = ("night", "morning", "afternoon", "evening")


def main():
    inputs, before = Path(os.environ["REFIT_INPUTS"]), os.environ.get("REFIT_CHAMPION")  # unset when there is none yet
    models = {"candidate": model.load(inputs / "candidate")}
    if before:
        models["champion"] = model.load(Path(before, "forecast"))
    _, held_out = readings.read(inputs / "readings")
    with open("predictions.csv", "w", newline="") as file:  # declared under `artifacts:`
        writer = csv.writer(file)
        writer.writerow(["time", "day", "part", "demand", *models])
        for row in held_out:
            forecasts = [f"{model.forecast(one, row):.3f}" for one in models.values()]
            writer.writerow([row["time"], row["day"], PARTS[row["hour"] // 6], row["demand"], *forecasts])
    print(f"{len(held_out)} hours, {' and '.join(models)}")


if __name__ == "__main__":
    main()
