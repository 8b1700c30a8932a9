"""Recomputes one segment's ranking: the champion's segment, moved by the new interactions. The others stay as they are.

Everything it needs it is handed: the champion and the events. So an attempt that is made again gives the same
candidate, and what a refused candidate was taught is forgotten with it.
"""

import json
import os

import bandit
import interactions


def main():
    segment = os.environ["PARAM_SEGMENT"]
    shown, _ = interactions.of_this_run(segment)
    segments = bandit.load(os.environ.get("REFIT_CHAMPION"))
    segments[segment] = bandit.learn(segments.get(segment, bandit.fresh()), shown)
    with open("segments.json", "w") as file:  # declared under `artifacts:`
        json.dump(segments, file, indent=1)
    taken = sum(taken for _, taken in shown)
    print(f"{segment}: {taken} of {len(shown)} taken; ranking {bandit.ranking(segments[segment])}")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"ranking": bandit.ranking(segments[segment]), "share": taken / len(shown)}) + "\n")


if __name__ == "__main__":
    main()
