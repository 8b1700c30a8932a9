"""Trains one instance of the sweep: one order and one smoothing, which come as arguments.

Fails when the model holds something in the validation text for impossible. That is what happens without smoothing, and
the reason why the sweep may lose some of its instances.
"""

import json
import math
import os
import sys

import model
import text


def main():
    order, smoothing = int(sys.argv[1]), float(sys.argv[2])
    texts = text.training(int(os.environ["PARAM_TOPICS"]))
    candidate = model.fit(texts, order, smoothing)
    bits, hits = model.judge(candidate, text.validation())
    print(f"{len(texts)} topics, order {order}, smoothing {smoothing:g}: {bits:.4f} bits per letter")
    if not math.isfinite(bits):
        raise SystemExit("it holds text for impossible that people have written: not fit for use")

    model.save(candidate, "letters.json")  # declared under `artifacts:`
    with open(os.environ["REFIT_METRICS"], "a") as file:
        for name, value in {"validation_bits": bits, "validation_hits": hits}.items():
            file.write(json.dumps({"name": name, "value": value}) + "\n")
    # `select` takes over what the chosen instance hands on: so the steps after it know which one that was.
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"order": order, "smoothing": smoothing, "contexts": len(candidate["counts"])}) + "\n")


if __name__ == "__main__":
    main()
