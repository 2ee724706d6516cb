"""reviews: what readers say. v1 has no stars, v2 black ones, v3 red ones (from ratings)."""

from __future__ import annotations

import os

from service import Answer, Call, get, host_of, main, number, port_of

VERSION = os.environ.get("SERVICE_VERSION", "v1")
STARS = os.environ.get("ENABLE_RATINGS", "false") == "true"
COLOUR = os.environ.get("STAR_COLOR", "black")
TEXTS = (
    "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
)


def handle(call: Call) -> object:
    path = call.path.partition("?")[0]
    if path == "/health":
        return {"status": "Reviews is healthy"}
    if not path.startswith("/reviews/"):
        return Answer(404, {"error": "not found"})
    book = number(path.removeprefix("/reviews/"))
    reviews: list[dict[str, object]] = [
        {"reviewer": f"Reviewer{i}", "text": text} for i, text in enumerate(TEXTS, 1)
    ]
    if STARS:
        # A slow or absent ratings service must not take the reviews with it.
        status, found = get(
            host_of("RATINGS_HOSTNAME", "ratings"),
            port_of("RATINGS_SERVICE_PORT"),
            f"/ratings/{book}",
            call,
            2.5,
        )
        for review in reviews:
            if status == 200 and isinstance(found, dict):
                review["rating"] = {
                    "stars": found.get("ratings", {}).get(review["reviewer"]),
                    "color": COLOUR,
                }
            else:
                review["rating"] = {"error": "Ratings service is currently unavailable"}
    pod = os.environ.get("HOSTNAME", "")
    return {
        "id": str(book),
        "podname": pod,
        "clustername": os.environ.get("CLUSTER_NAME"),
        "version": VERSION,
        "reviews": reviews,
    }


if __name__ == "__main__":
    main(handle)
