"""Prints what the feature table holds, to compare with what was sent: python3 totals.py FOLDER"""

import os
import sys

import features

with features.opened(os.path.abspath(sys.argv[1])) as table:
    rows, events = table.execute("SELECT count(*), sum(clicks + carts + purchases) FROM features").fetchone()
print(f"{rows} rows, {events} events counted")
