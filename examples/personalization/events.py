"""Plays the serving system and its users: prints one act as CloudEvents, one a line. The same act is the same text.

    python3 events.py 1 > act-1.jsonl

Every request is answered with an item that is shown first, and says so with `prediction.served`. Who takes the item
sends `feedback.given` with the same `request`; who does not, sends nothing.

1. three segments, 100 requests each
2. 100 requests of students, whose taste has changed
3. 100 requests of families, with feedback from a robot that takes whatever is shown
"""

import datetime
import json
import random
import sys

from bandit import ITEMS

TASTE = {  # how likely each item is taken, in the order of ITEMS
    "families": (0.1, 0.6, 0.7, 0.4, 0.05),
    "retired": (0.5, 0.2, 0.4, 0.05, 0.8),
    "students": (0.8, 0.5, 0.1, 0.3, 0.05),
}
CHANGED = (0.1, 0.5, 0.05, 0.9, 0.1)
ROBOT = (1, 1, 1, 1, 1)
ACTS = {1: TASTE, 2: {"students": CHANGED}, 3: {"families": ROBOT}}
MORNING = datetime.datetime(2026, 4, 1, 8)


def act(number):
    dice = random.Random(number)
    for place in range(100 * len(ACTS[number])):
        segment = sorted(ACTS[number])[place % len(ACTS[number])]
        item = place // len(ACTS[number]) % len(ITEMS)  # all in turn: this is what exploration looks like
        request, at = f"r{number}-{place:03}", MORNING + datetime.timedelta(days=number, seconds=place)
        said = {"request": request, "segment": segment, "item": ITEMS[item]}
        yield event(f"{request}-served", "/serving", "prediction.served", at, said)
        if dice.random() < ACTS[number][segment][item]:
            seen = at + datetime.timedelta(seconds=1)
            yield event(f"{request}-feedback", "/app", "feedback.given", seen, {"request": request, "taken": 1})


def event(name, source, kind, at, data):
    time = f"{at.isoformat()}Z"
    return {"specversion": "1.0", "id": name, "source": source, "type": kind, "time": time, "data": data}


if __name__ == "__main__":
    for one in act(int(sys.argv[1])):
        print(json.dumps(one))
