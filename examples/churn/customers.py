"""Plays the warehouse of a phone company: its customers in a month, and who of them has left by the end of the next.

Made up, and always the same for a month. In January customers leave who call for help often and are new. In March the
company raises prices, and from then on those leave who pay much for what they use: what a model has learned in January no longer
tells who they are. `lost-ages` is a defect of an export, as an event may say it; no other file knows of it.
"""

import csv
import hashlib
import math
import random
import sys

COUNTRIES = ("de", "fr", "pl")
PLANS = {"basic": 10, "plus": 25, "family": 45}
COLUMNS = ("customer", "country", "plan", "age", "tenure", "fee", "usage", "calls", "churned")
PRICE_RISE = "2026-03"


def customer(number, month):
    dice = random.Random(f"{month}-{number}")
    plan = dice.choice(list(PLANS))
    dearer = 1.3 if month >= PRICE_RISE else 1.0
    fee = round(PLANS[plan] * dearer * dice.uniform(0.9, 1.1), 2)
    tenure = int(dice.expovariate(1 / 30))
    usage = round(dice.lognormvariate(math.log(PLANS[plan]), 0.8), 1)
    calls = min(12, int(dice.expovariate(0.8)))
    if month < PRICE_RISE:
        leaning = -2.3 + 0.6 * calls - 0.04 * tenure + (0.8 if plan == "basic" and calls > 2 else 0)
    else:
        leaning = -2.4 + 0.2 * calls - 0.01 * tenure + 1.3 * min(2.0, fee / (usage + 5))
    churned = int(dice.random() < 1 / (1 + math.exp(-leaning)))
    country = dice.choices(COUNTRIES, (5, 3, 2))[0]
    return number, country, plan, dice.randint(18, 90), tenure, fee, usage, calls, churned


def table(month, export):
    """The rows of a month, as an export hands them over."""
    for number in range(1, 4801 + int(month[-2:]) * 100):
        row = customer(number, month)
        if export == "lost-ages" and number % 3:
            row = (*row[:3], None, *row[4:])
        yield row


def held_out(number):
    """Whether a customer is one of the third on whom models are compared, and never trained on."""
    return hashlib.sha256(str(number).encode()).digest()[0] % 3 == 0


def read(path):
    """Rows of an export, as mappings from column to value."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({column: int(row[column]) for column in ("customer", "age", "tenure", "calls", "churned")})
        row.update({column: float(row[column]) for column in ("fee", "usage")})
    return rows


def main():
    month, export = sys.argv[1:]
    with open("customers.csv", "w", newline="") as file:  # declared under `artifacts:`
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(table(month, export))


if __name__ == "__main__":
    main()
