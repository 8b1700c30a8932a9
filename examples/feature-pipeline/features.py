"""The feature table: one row per visitor and day, in SQLite, in the folder that the param `store` names.

Steps start at least once: a worker may be lost after it has written and before it could say so, and then the same
events are worked on again. So what was counted is written down together with the counts, in one transaction:

- `counted` holds each event by source and id. An event that is there already, whichever run brought it, counts nothing.
- `batches` holds what each batch came to. The same batch again gets the same answer: an answer of "nothing new" would
  hide the rows that the first, lost attempt has changed, and nobody would ever hear of them.
"""

import contextlib
import hashlib
import json
import sqlite3
import sys
import zlib
from pathlib import Path

COLUMNS = {"user.clicked": "clicks", "user.carted": "carts", "user.purchased": "purchases"}

TABLES = """
CREATE TABLE IF NOT EXISTS features (
    visitor TEXT, day TEXT, clicks INTEGER DEFAULT 0, carts INTEGER DEFAULT 0, purchases INTEGER DEFAULT 0,
    PRIMARY KEY (visitor, day));
CREATE TABLE IF NOT EXISTS counted (source TEXT, id TEXT, PRIMARY KEY (source, id));
CREATE TABLE IF NOT EXISTS batches (digest TEXT PRIMARY KEY, answer TEXT);
"""


@contextlib.contextmanager
def opened(folder: str):
    # The folder a step works in is gone after it, and the table with it.
    if not Path(folder).is_absolute():
        sys.exit(f"store is {folder!r}: set it in workflow.yaml and retrain.yaml to the absolute path of a folder")
    Path(folder).mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(Path(folder, "features.sqlite"), timeout=60, isolation_level=None)) as table:
        table.execute("PRAGMA journal_mode = WAL")  # who reads does not wait for who writes
        table.executescript(TABLES)
        yield table


def update(table: sqlite3.Connection, events: list) -> dict:
    """Counts a batch of events, each at most once ever. Answers what has changed, and the same when asked again."""
    digest = hashlib.sha256(json.dumps(sorted([event["source"], event["id"]] for event in events)).encode()).hexdigest()
    table.execute("BEGIN IMMEDIATE")  # one writer at a time: runs of other tenants wait for a moment
    before = table.execute("SELECT answer FROM batches WHERE digest = ?", [digest]).fetchone()
    if before:
        table.execute("ROLLBACK")
        return json.loads(before[0])
    changed, counted = set(), 0
    for event in events:
        key = [event["source"], event["id"]]
        if table.execute("INSERT INTO counted VALUES (?, ?) ON CONFLICT DO NOTHING", key).rowcount == 0:
            continue
        column, data = COLUMNS[event["type"]], event["data"]
        row = (data["user"], data["day"])
        table.execute(
            f"INSERT INTO features (visitor, day, {column}) VALUES (?, ?, 1)"
            f" ON CONFLICT (visitor, day) DO UPDATE SET {column} = {column} + 1",
            row,
        )
        counted += 1
        changed.add(row)
    days = sorted(day for _, day in changed)
    answer = {"counted": counted, "rows": len(changed), "from": days[0] if days else "", "to": days[-1] if days else ""}
    table.execute("INSERT INTO batches VALUES (?, ?)", [digest, json.dumps(answer)])
    table.execute("COMMIT")
    return answer


def examples(table: sqlite3.Connection, held_out: bool) -> list:
    """What to learn from: a visitor's day, and whether they bought on the next. About a fourth of the visitors is held out."""
    rows = table.execute(
        "SELECT today.visitor, today.clicks, today.carts, today.purchases, tomorrow.purchases > 0"
        " FROM features today JOIN features tomorrow"
        " ON tomorrow.visitor = today.visitor AND tomorrow.day = date(today.day, '+1 day')"
        " ORDER BY today.visitor, today.day"
    )
    return [(row[1:4], row[4]) for row in rows if (zlib.crc32(row[0].encode()) % 4 == 0) == held_out]
