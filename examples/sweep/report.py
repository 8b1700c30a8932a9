"""Writes the report of one sweep, whoever ran it: everything it says comes as params."""

import json
import os
from pathlib import Path


def main():
    params = json.loads(Path(os.environ["REFIT_PARAMS"]).read_text())
    lost = params["tried"] - params["succeeded"]
    headline = f"{params['run']}: {params['winner']} won of {params['tried']}, gate: {params['verdict']}"
    report = [
        f"# {headline}",
        "",
        f"- instances: {params['tried']}, of which {lost} did not succeed",
        f"- {params['metric']}: {params['value']:.4f}",
        f"- verdict of the gate: {params['verdict']}",
    ]
    Path("report.md").write_text("\n".join(report) + "\n")
    print("\n".join(report))
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"headline": headline}) + "\n")


if __name__ == "__main__":
    main()
