"""Asks both indexes the same questions: a row for each question and document, for `evaluate` to count."""

import csv
import os
from pathlib import Path

import documents
import semantic

NOT_THERE = -1  # of a document that an index does not hold: behind all others


def main():
    count, before = int(os.environ["PARAM_DOCUMENTS"]), os.environ.get("REFIT_CHAMPION")  # unset when there is none yet
    indexes = {"candidate": semantic.load(Path(os.environ["REFIT_INPUTS"], "candidate"))}
    if before:
        indexes["champion"] = semantic.load(Path(before, "index"))
    names, questions = list(documents.current(count)), documents.questions(count)
    with open("answers.csv", "w", newline="") as file:  # declared under `artifacts:`
        writer = csv.writer(file)
        writer.writerow(["question", "document", "relevant", *indexes])
        for about, question in questions.items():
            found = [semantic.search(index, question) for index in indexes.values()]
            for name in names:
                scores = [f"{one.get(name, NOT_THERE):.6f}" for one in found]
                writer.writerow([about, name, int(name == about), *scores])
    print(f"{len(questions)} questions to {len(names)} documents, {' and '.join(indexes)}")


if __name__ == "__main__":
    main()
