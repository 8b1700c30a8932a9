"""Judges candidate and champion on the interactions of this run that were held out. Decides nothing."""

import json
import os
from pathlib import Path

import bandit
import interactions


def main():
    segment = os.environ["PARAM_SEGMENT"]
    _, held_out = interactions.of_this_run(segment)
    candidate = json.loads(Path(os.environ["REFIT_INPUTS"], "candidate").read_text())
    champion = bandit.load(os.environ.get("REFIT_CHAMPION"))
    metrics = {
        "loss": bandit.loss(candidate[segment], held_out),
        # A segment that the champion does not know is one of which nothing is known.
        "champion_loss": bandit.loss(champion.get(segment, bandit.fresh()), held_out),
    }
    print(f"{segment}, {len(held_out)} held out: {metrics}")
    with open(os.environ["REFIT_METRICS"], "a") as file:
        for name, value in metrics.items():
            file.write(json.dumps({"name": name, "value": value}) + "\n")


if __name__ == "__main__":
    main()
