"""Builds a candidate: the index of all documents that are there by now."""

import json
import os

import documents
import semantic


def main():
    texts = documents.current(int(os.environ["PARAM_DOCUMENTS"]), os.environ["PARAM_CRAWL"])
    index = semantic.build(texts, int(os.environ["PARAM_DIMENSIONS"]))
    semantic.save(index, "index.json")  # declared under `artifacts:`
    print(f"{len(texts)} documents, {len(index['rarity'])} words")
    with open(os.environ["REFIT_OUTPUTS"], "a") as file:
        file.write(json.dumps({"documents": len(texts), "words": len(index["rarity"])}) + "\n")


if __name__ == "__main__":
    main()
