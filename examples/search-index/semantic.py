"""Latent semantic indexing in plain Python (Deerwester et al. 1990): documents as points in a space of few dimensions, in
which words that occur in the same places lie close, so that a question may find what does not hold its words.
"""

import json
import math
import random
import re
from collections import Counter
from pathlib import Path


def words(text):
    return re.findall(r"[a-z_]{2,}", text.lower())


def _weigh(counts, rarity):
    return {word: (1 + math.log(count)) * rarity[word] for word, count in counts.items() if word in rarity}


def _unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def _dot(one, other):
    return sum(a * b for a, b in zip(one, other))


def build(documents, dimensions, rounds=12):
    """The index: rarity of words, directions of words, place of each document."""
    names, counts = list(documents), [Counter(words(text)) for text in documents.values()]
    among = Counter(word for count in counts for word in count)
    rarity = {word: math.log(len(names) / times) for word, times in among.items() if times < len(names)}
    rows = []
    for count in counts:
        row = _weigh(count, rarity)
        length = math.sqrt(sum(value * value for value in row.values()))
        rows.append({word: value / length for word, value in row.items()} if length else {})
    alike = [[sum(value * other.get(word, 0.0) for word, value in row.items()) for other in rows] for row in rows]
    # Directions of the documents: subspace iteration on how alike they are.
    dice = random.Random(7)
    basis = [[dice.gauss(0, 1) for _ in names] for _ in range(min(dimensions, len(names)))]
    for _ in range(rounds):
        grown = [[_dot(line, vector) for line in alike] for vector in basis]
        basis = []
        for vector in grown:
            for known in basis:
                share = _dot(vector, known)
                vector = [value - share * other for value, other in zip(vector, known)]
            basis.append(_unit(vector))
    directions = {word: [0.0] * len(basis) for word in rarity}
    for axis, vector in enumerate(basis):
        scale = math.sqrt(max(_dot(vector, [_dot(line, vector) for line in alike]), 1e-12))
        for row, share in zip(rows, vector):
            for word, value in row.items():
                directions[word][axis] += value * share / scale
    places = {name: _unit(_place(row, directions)) for name, row in zip(names, rows)}
    return {"rarity": rarity, "directions": directions, "places": places}


def _place(row, directions):
    place = [0.0] * len(next(iter(directions.values()), []))
    for word, value in row.items():
        place = [one + value * other for one, other in zip(place, directions[word])]
    return place


def search(index, question):
    """How close each document is to the question, by its name; between -1 and 1."""
    asked = _unit(_place(_weigh(Counter(words(question)), index["rarity"]), index["directions"]))
    return {name: _dot(asked, place) for name, place in index["places"].items()}


def save(index, path):
    thin = {word: [round(value, 5) for value in vector] for word, vector in index["directions"].items()}
    Path(path).write_text(json.dumps({**index, "directions": thin}))


def load(path):
    return json.loads(Path(path).read_text())
