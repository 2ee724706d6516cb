"""details: facts about a book."""

from __future__ import annotations

from service import Answer, Call, main, number

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
        book = number(path.removeprefix("/details/"))
        if call.method != "GET":
            return Answer(405, {"error": f"{call.method} is not served"})
        return {"id": book, **BOOK}
    return Answer(404, {"error": "not found"})


if __name__ == "__main__":
    main(handle)
