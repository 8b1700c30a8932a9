"""What a run's `interaction.completed` events say, split into what is learned from and what is judged by."""

import json
import os
from pathlib import Path


def of_this_run(segment: str):
    """(item, taken) pairs: those to learn from, and those held out. An event counts once, in the order of requests."""
    events = map(json.loads, Path(os.environ["REFIT_EVENTS"]).read_text().splitlines())
    found = {event["data"]["request"]: event["data"] for event in events if event["type"] == "interaction.completed"}
    mine = [found[request] for request in sorted(found) if found[request]["segment"] == segment]
    if len(mine) < 4:
        raise SystemExit(f"{len(mine)} interactions of segment {segment!r}: too few to learn from and to judge by")
    pairs = [(one["item"], one["taken"]) for one in mine]
    held_out = pairs[::3]
    return [pair for place, pair in enumerate(pairs) if place % 3], held_out
