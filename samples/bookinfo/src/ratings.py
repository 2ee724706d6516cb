"""ratings: stars by reviewer, kept in memory; POST changes them for the life of the pod."""

from __future__ import annotations

import json

from service import Answer, Call, main, number

_ratings: dict[int, dict[str, int]] = {}


def handle(call: Call) -> object:
    path = call.path.partition("?")[0]
    if path == "/health":
        return {"status": "Ratings is healthy"}
    if not path.startswith("/ratings/"):
        return Answer(404, {"error": "not found"})
    book = number(path.removeprefix("/ratings/"))
    if call.method == "POST":
        try:
            given = json.loads(call.body)
            # Bounded, so that nobody fills the pod's memory.
            if len(_ratings) >= 1000 and book not in _ratings:
                return Answer(507, {"error": "too many products have ratings of their own"})
            _ratings[book] = {str(k): int(v) for k, v in given.items()}
        except (ValueError, AttributeError, TypeError):
            return Answer(400, {"error": "please provide valid ratings JSON"})
    elif call.method != "GET":
        return Answer(405, {"error": f"{call.method} is not served"})
    return {"id": book, "ratings": _ratings.get(book, {"Reviewer1": 5, "Reviewer2": 4})}


if __name__ == "__main__":
    main(handle)
