"""Judges candidate and champion on the visitors that no model is trained on, with today's table. Decides nothing."""

import json
import os
from pathlib import Path

import features
import model


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    with features.opened(params["store"]) as table:
        examples = features.examples(table, held_out=True)
    metrics = {"auc": model.auc(model.load(Path(os.environ["REFIT_INPUTS"], "candidate")), examples)}
    champion = os.environ.get("REFIT_CHAMPION")  # unset when there is none yet
    if champion:
        # The table has grown since the champion was promoted, so that its AUC of then says little.
        metrics["champion_auc"] = model.auc(model.load(Path(champion, "propensity")), examples)
    print(f"{len(examples)} held out: {metrics}")
    with open(os.environ["REFIT_METRICS"], "a") as file:
        for name, value in metrics.items():
            file.write(json.dumps({"name": name, "value": value}) + "\n")


if __name__ == "__main__":
    main()
