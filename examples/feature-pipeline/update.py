"""The step that counts a batch of events into the feature table."""

import json
import os
from pathlib import Path

import features


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    lines = Path(os.environ["REFIT_EVENTS"]).read_text().splitlines()
    # A run started by hand stands for an event of another type: there is nothing to count.
    events = [event for event in map(json.loads, lines) if event["type"] in features.COLUMNS]
    with features.opened(params["store"]) as table:
        answer = features.update(table, events)
    print(f"{len(events)} events: {answer['counted']} counted, {answer['rows']} rows changed")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
