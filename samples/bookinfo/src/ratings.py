"""ratings: stars by reviewer, kept in memory; POST changes them for the life of the pod."""

from __future__ import annotations

import json
import os
import sys

from service import Answer, Call, serve

_ratings: dict[int, dict[str, int]] = {}


def handle(call: Call) -> object:
    path = call.path.partition("?")[0]
    if path == "/health":
        return {"status": "Ratings is healthy"}
    if not path.startswith("/ratings/"):
        return Answer(404, {"error": "not found"})
    number = path.removeprefix("/ratings/")
    if not number.isdigit():
        return Answer(400, {"error": "please provide numeric product ID"})
    if call.method == "POST":
        try:
            given = json.loads(call.body)
            _ratings[int(number)] = {str(k): int(v) for k, v in given.items()}
        except (ValueError, AttributeError, TypeError):
            return Answer(400, {"error": "please provide valid ratings JSON"})
    elif call.method != "GET":
        return Answer(405, {"error": f"{call.method} is not served"})
    return {"id": int(number), "ratings": _ratings.get(int(number), {"Reviewer1": 5, "Reviewer2": 4})}


if __name__ == "__main__":
    serve(handle, int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("PORT", "9080")))
