"""Puts the champion's rankings where the serving system reads them. The file is replaced whole or not at all, and doing
it again changes nothing: an attempt may be made twice.
"""

import json
import os
import sys
from pathlib import Path

import bandit


def main():
    # The folder a step works in is gone after it, and no serving system reads there.
    if not os.path.isabs(os.environ["PARAM_SERVING"]):
        sys.exit(f"serving is {os.environ['PARAM_SERVING']!r}: set it in publish.yaml to the absolute path of a folder")
    # The champion when this run began: the version of the event that started it, or a newer one.
    rankings = {name: bandit.ranking(segment) for name, segment in bandit.load(os.environ["REFIT_CHAMPION"]).items()}
    target = Path(os.environ["PARAM_SERVING"], "rankings.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f"rankings.{os.getpid()}.tmp")
    written.write_text(json.dumps({"version": int(os.environ["VERSION"]), "rankings": rankings}, indent=1) + "\n")
    written.replace(target)
    print(f"version {os.environ['VERSION']}: {', '.join(sorted(rankings))}")


if __name__ == "__main__":
    main()
