"""Plays the meters of a small town: hourly demand and temperature from the first of January to some day.

Made up, and always the same for an hour. Demand follows the hour, the weekday, heating below 15 degrees and, from May on,
cooling above 21. What a whole day has in common (a match on television, a cloud over the solar roofs) makes the errors of
its hours alike. `late` is a defect of a delivery, as an event may say it: its clocks are an hour late, as with summer time
taken for UTC. Every value in it is a real one; no other file knows of it.
"""

import csv
import datetime
import math
import random
import sys

FIRST = datetime.date(2026, 1, 1)
HELD_OUT = 28  # the last days of a delivery, on which models are compared; settled readings, never trained on
COLUMNS = ("time", "day", "hour", "weekend", "temperature", "demand")
LATE = 1  # hours


def day(date):
    dice = random.Random(date.toordinal())
    season = -math.cos(2 * math.pi * (date.timetuple().tm_yday - 20) / 365)
    mean, whim = 11 + 11 * season + dice.gauss(0, 2.5), dice.gauss(0, 3)
    weekend = date.weekday() >= 5
    for hour in range(24):
        temperature = mean + 4 * math.sin(math.pi * (hour - 8) / 12)
        evening, morning = math.exp(-(((hour - 19) / 2.5) ** 2)), math.exp(-(((hour - 8) / 2) ** 2))
        demand = 70 + 30 * evening + (8 if weekend else 22) * morning - (6 if weekend else 0)
        demand += 1.6 * max(0, 15 - temperature) + 2.5 * max(0, temperature - 21) + whim + dice.gauss(0, 2)
        yield hour, int(weekend), round(temperature, 1), round(demand, 2)


def table(until, delivery):
    days = [FIRST + datetime.timedelta(place) for place in range((until - FIRST).days + 1)]
    rows = [(date, *hour) for date in days for hour in day(date)]
    if delivery == "late":  # the settled readings come from elsewhere
        right = len(rows) - 24 * HELD_OUT
        shifted = [row[-1] for row in rows[:right]]
        shifted = shifted[-LATE:] + shifted[:-LATE]
        rows[:right] = [(*row[:-1], demand) for row, demand in zip(rows, shifted)]
    for date, hour, *rest in rows:
        yield f"{date}T{hour:02}:00:00Z", date, hour, *rest


def read(path):
    """What models are trained on, and what they are compared on: mappings from column to value, by time."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({column: int(row[column]) for column in ("hour", "weekend")})
        row.update({column: float(row[column]) for column in ("temperature", "demand")})
    border = len(rows) - 24 * HELD_OUT
    return rows[:border], rows[border:]


def main():
    until, delivery = sys.argv[1:]
    with open("readings.csv", "w", newline="") as file:  # declared under `artifacts:`
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(table(datetime.date.fromisoformat(until), delivery))


if __name__ == "__main__":
    main()
