"""Trains a candidate on everything known so far: the champion's own training rows plus those of the new events.

The rows travel inside the model's folder, so a run needs no state but what Refit hands it. Rows that a refused
candidate was trained on are therefore forgotten with it.
"""

import json
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

import table

DIGITS = np.arange(10)


def report(name, value, step):
    """Hands Refit one point of a metric; it is shown while the step runs."""
    with open(os.environ["REFIT_METRICS"], "a") as metrics:
        metrics.write(json.dumps({"name": name, "value": float(value), "step": step}) + "\n")


def gather():
    """All training rows by number: what came last about a row is what counts."""
    known = {}
    champion = os.environ.get("REFIT_CHAMPION")  # unset when there is no champion yet
    if champion:
        with np.load(Path(champion, "model", "rows.npz")) as kept:
            known.update(zip(kept["rows"], zip(kept["pixels"], kept["labels"])))
    carried = len(known)
    lines = Path(os.environ["REFIT_EVENTS"]).read_text().splitlines()
    # A run started by hand stands for an event of another type: it trains on what is known already.
    events = [event for event in map(json.loads, lines) if event["type"] == "digits.labelled"]
    for event in events:
        rows, pixels, labels = table.labelled(event)
        known.update(zip(rows, zip(pixels, labels)))
    if not known:
        raise SystemExit("nothing to train on: there is no champion yet and the run has no digits.labelled event")
    rows = np.array(sorted(known))
    pixels = np.array([known[row][0] for row in rows])
    labels = np.array([known[row][1] for row in rows])
    print(f"{len(events)} events; {carried} rows carried on from the champion, {len(rows) - carried} new", flush=True)
    return rows, pixels, labels


def train(pixels, labels, epochs, seed):
    """A small neural network, one pass over the rows at a time, so that progress can be watched."""
    model = MLPClassifier(
        hidden_layer_sizes=(64,), batch_size=min(32, len(labels)), learning_rate_init=0.005, random_state=seed
    )
    shuffle = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        order = shuffle.permutation(len(labels))
        model.partial_fit(pixels[order], labels[order], classes=DIGITS)
        if epoch % 5 == 0 or epoch == epochs:
            loss = log_loss(labels, model.predict_proba(pixels), labels=DIGITS)
            fitted = model.score(pixels, labels)
            report("loss", loss, epoch)
            report("training_accuracy", fitted, epoch)
            print(f"epoch {epoch:>3} of {epochs}: loss {loss:.4f}, training accuracy {fitted:.4f}", flush=True)
    return model


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    rows, pixels, labels = gather()
    model = train(pixels, labels, params["epochs"], params["seed"])

    folder = Path("model")  # declared under `artifacts:`, so it becomes steps.train.artifacts.model
    folder.mkdir(exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    np.savez_compressed(folder / "rows.npz", rows=rows, pixels=pixels, labels=labels)

    outputs = {"rows": len(rows), "rows_per_digit": np.bincount(labels, minlength=10).tolist()}
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:  # JSON keeps the type: the gate compares rows with a number
        file.write(json.dumps(outputs) + "\n")


if __name__ == "__main__":
    main()
