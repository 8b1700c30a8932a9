"""The documents that are searched, and people's questions: the reference topics of Python's manual, which every Python brings along.

A question is a sentence out of a topic, taken from its middle; the topic is what should be found, and the sentence is in no index.
`pydoc_data` differs a little between versions of Python, and so do the numbers; nothing else depends on it. `error-page` is a
defect of a crawler, as an event may say it: what it brought is the error page of a proxy.
"""

import re

from pydoc_data.topics import topics

ERROR_PAGE = "503 Service Unavailable\nNo server is available to handle this request. Please try again later."


def _sentences(text):
    text = re.sub(r"\s+", " ", re.sub(r"\*{3,}|={3,}|-{3,}", " ", text))
    return [one for one in re.split(r"(?<=[.:]) (?=[A-Z])", text) if one]


def _question_at(sentences):
    """Where the topic's question is; none in a topic that is too short to spare one."""
    middle = len(sentences) // 2
    for place in [*range(middle, len(sentences)), *range(middle)]:
        if len(sentences) > 6 and 60 <= len(sentences[place]) <= 250:
            return place
    return None


def current(count, crawl="plain"):
    """The documents that are there by now: text by name, without the questions."""
    found = {}
    for name in sorted(topics)[:count]:
        sentences = _sentences(topics[name])
        asked = _question_at(sentences)
        found[name] = " ".join(one for place, one in enumerate(sentences) if place != asked)
        if crawl == "error-page" and len(found) % 5:
            found[name] = ERROR_PAGE
    return found


def questions(count):
    """Questions about the documents that are there by now: text by the name of the document that answers it."""
    asked = {}
    for name in sorted(topics)[:count]:
        sentences = _sentences(topics[name])
        if (place := _question_at(sentences)) is not None:
            asked[name] = sentences[place]
    return asked
