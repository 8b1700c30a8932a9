"""Plays the shop: prints one week of what its visitors did, as CloudEvents, one a line. The same week is the same text.

    python3 events.py 1 > week-1.jsonl

Each visitor has a mood that lasts for some days: who is in the mood clicks more today and buys more tomorrow. That is
what there is to learn. A day's events are shipped in the night after it, and `time` is when they were shipped.
"""

import datetime
import json
import math
import random
import sys

TENANTS = ("north", "south", "west")
VISITORS = 50  # of each tenant
MONDAY = datetime.date(2026, 3, 2)


def visitor(tenant, number, days):
    """What one visitor does on each of the first `days` days: how often they click, add to the cart, and buy."""
    dice = random.Random(f"{tenant}-{number}")
    mood = dice.gauss(0, 1)
    for _ in range(days):
        mood = 0.9 * mood + 0.4 * dice.gauss(0, 1)
        clicks = 1 + min(8, int(dice.expovariate(1) * math.exp(0.8 * mood)))
        carts = sum(dice.random() < 0.3 for _ in range(clicks))
        buys = int(dice.random() < 1 / (1 + math.exp(1.5 - 2 * mood)))
        yield {"user.clicked": clicks, "user.carted": carts, "user.purchased": buys}


def week(number):
    """The events of week 1, 2, …, as they were shipped: day by day."""
    first, days = 7 * (number - 1), 7 * number
    shipped = {day: [] for day in range(first, days)}
    for tenant in TENANTS:
        for who in range(VISITORS):
            for day, done in enumerate(visitor(tenant, who, days)):
                if day >= first:
                    shipped[day] += events(tenant, f"{tenant}-{who:02}", MONDAY + datetime.timedelta(day), done)
    for day in shipped.values():
        random.Random(len(day)).shuffle(day)  # tenants and visitors arrive mixed
        yield from day


def events(tenant, user, day, done):
    night = datetime.datetime.combine(day + datetime.timedelta(1), datetime.time(0, 30))
    for kind, times in done.items():
        for count in range(times):
            yield {
                "specversion": "1.0",
                "id": f"{user}-{day}-{kind}-{count}",
                "source": f"/shop/{tenant}",
                "type": kind,
                "subject": user,
                "time": f"{night.isoformat()}Z",
                "data": {"tenant": tenant, "user": user, "day": day.isoformat()},
            }


if __name__ == "__main__":
    for event in week(int(sys.argv[1])):
        print(json.dumps(event))
