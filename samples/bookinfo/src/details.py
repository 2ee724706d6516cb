"""details: facts about a book."""

from __future__ import annotations

import os
import sys

from service import Answer, Call, serve

BOOK = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}


def handle(call: Call) -> object:
    path = call.path.partition("?")[0]
    if path == "/health":
        return {"status": "Details is healthy"}
    if path.startswith("/details/"):
        number = path.removeprefix("/details/")
        if not number.isdigit():
            return Answer(400, {"error": "please provide numeric product id"})
        if call.method != "GET":
            return Answer(405, {"error": f"{call.method} is not served"})
        return {"id": int(number), **BOOK}
    return Answer(404, {"error": "not found"})


if __name__ == "__main__":
    serve(handle, int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("PORT", "9080")))
