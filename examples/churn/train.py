"""Trains one instance of the sweep: trees of one depth, which comes as an argument."""

import json
import os
import sys
from pathlib import Path

import customers
import model


def main():
    depth, rounds = int(sys.argv[1]), int(os.environ["PARAM_ROUNDS"])
    table = customers.read(Path(os.environ["REFIT_INPUTS"], "customers"))
    known = [row for row in table if not customers.held_out(row["customer"])]
    fifth = len(known) // 5  # what the instances are compared on
    candidate = model.fit(known[fifth:], depth, rounds)
    loss = model.log_loss(candidate, known[:fifth])
    print(f"depth {depth}, {rounds} trees, {len(known) - fifth} customers: log loss {loss:.4f}")
    model.save(candidate, "churn.json")  # declared under `artifacts:`
    with open(os.environ["REFIT_METRICS"], "a") as file:
        file.write(json.dumps({"name": "validation_loss", "value": loss}) + "\n")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"depth": depth, "customers": len(known) - fifth}) + "\n")


if __name__ == "__main__":
    main()
