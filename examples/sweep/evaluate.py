"""Judges the chosen instance on text that none was chosen by, and prints the champion beside it. Decides nothing."""

import json
import os
from pathlib import Path

import model
import text


def main():
    bits, hits = model.judge(model.load(Path(os.environ["REFIT_INPUTS"], "candidate")), text.hold_out())
    print(f"candidate: {bits:.4f} bits per letter, guesses {hits:.1%}")
    champion = os.environ.get("REFIT_CHAMPION")  # unset when there is none yet
    if champion:
        before, guessed = model.judge(model.load(Path(champion, "letters")), text.hold_out())
        print(f"champion:  {before:.4f} bits per letter, guesses {guessed:.1%}")
    else:
        print("there is no champion to compare with")
    with open(os.environ["REFIT_METRICS"], "a") as file:
        for name, value in {"bits": bits, "hits": hits}.items():
            file.write(json.dumps({"name": name, "value": value}) + "\n")


if __name__ == "__main__":
    main()
