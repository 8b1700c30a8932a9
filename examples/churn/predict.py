"""What candidate and champion say of the customers that neither was trained on: a row each, for `evaluate` to count."""

import csv
import os
from pathlib import Path

import customers
import model


def main():
    inputs, before = Path(os.environ["REFIT_INPUTS"]), os.environ.get("REFIT_CHAMPION")  # unset when there is none yet
    models = {"candidate": model.load(inputs / "candidate")}
    if before:
        models["champion"] = model.load(Path(before, "churn"))
    table = [row for row in customers.read(inputs / "customers") if customers.held_out(row["customer"])]
    with open("predictions.csv", "w", newline="") as file:  # declared under `artifacts:`
        writer = csv.writer(file)
        writer.writerow(["customer", "country", "churned", *models])
        for row in table:
            scores = [f"{model.score(one, row):.6f}" for one in models.values()]
            writer.writerow([row["customer"], row["country"], row["churned"], *scores])
    print(f"{len(table)} customers, {' and '.join(models)}")


if __name__ == "__main__":
    main()
