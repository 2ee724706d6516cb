"""productpage: the page of a book, made from details and reviews."""

from __future__ import annotations

import html
import os
import sys
from typing import Any
from urllib.parse import parse_qs

from service import Answer, Call, get, host_of, serve

PRODUCTS = [
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": (
            "The Comedy of Errors is one of William Shakespeare's early plays: two pairs of twins, separated as"
            " children, meet in one city on one day, and everybody takes everybody for somebody else."
        ),
    }
]
STYLE = """
:root{--ink:#1f2937;--dim:#6b7280;--line:#e5e7eb;--paper:#ffffff;--back:#f3f4f6;--mark:#0f766e}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,"DejaVu Sans",sans-serif}
header{background:#0f172a;color:#fff}header div{max-width:60rem;margin:auto;padding:.9rem 1.25rem;display:flex;
justify-content:space-between;align-items:center}header a{color:#99f6e4;text-decoration:none}header b{letter-spacing:.02em}
main{max-width:60rem;margin:2rem auto;padding:0 1.25rem}h1{margin:.2rem 0 .4rem;font-size:2rem}h2{font-size:1.15rem;margin:0 0 .8rem}
.lead{color:var(--dim);max-width:44rem;margin:0 0 1.6rem}.grid{display:grid;grid-template-columns:1fr 1.5fr;gap:1.25rem}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:1.25rem;box-shadow:0 1px 2px #0000000d}
dl{display:grid;grid-template-columns:auto 1fr;gap:.35rem 1rem;margin:0}dt{color:var(--dim)}dd{margin:0}
blockquote{margin:0 0 1rem;padding:0 0 0 .9rem;border-left:3px solid var(--mark)}cite{display:block;color:var(--dim);font-style:normal}
.stars{font-size:1.25rem;letter-spacing:.1em}.error{color:#b91c1c}.served{color:var(--dim);font-size:.85rem;border-top:1px solid var(--line);
margin:1rem 0 0;padding-top:.6rem}form{display:inline}input{padding:.25rem .4rem;border-radius:6px;border:1px solid #475569}
button{padding:.3rem .8rem;border:0;border-radius:6px;background:var(--mark);color:#fff;cursor:pointer}
@media(max-width:44rem){.grid{grid-template-columns:1fr}}
"""


def shell(title: str, user: str, body: str) -> str:
    """A whole HTML document; its first line is the doctype alone."""
    if user:
        who = f'{html.escape(user)} · <a href="/logout">sign out</a>'
    else:
        who = (
            '<form action="/login" method="post"><input name="username" placeholder="user" aria-label="user">'
            " <button>Sign in</button></form>"
        )
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><header><div><b>Bookinfo sample</b>"
        f"<span>{who}</span></div></header>\n<main>{body}</main></body></html>\n"
    )


def front(user: str) -> str:
    return shell(
        "Bookinfo",
        user,
        "<h1>Bookinfo</h1><p class=lead>A small application of four services, made to be meshed.</p>"
        '<section><h2>Try it</h2><p><a href="/productpage">Normal user</a> · <a href="/productpage?u=test">Test user</a></p></section>',
    )


def page(call: Call, user: str) -> str:
    product = PRODUCTS[0]
    status, details = get(
        host_of("DETAILS_HOSTNAME", "details"), _port("DETAILS_SERVICE_PORT"), "/details/0", call
    )
    if status == 200:
        rows = "".join(
            f"<dt>{html.escape(label)}</dt><dd>{html.escape(str(details.get(key)))}</dd>"
            for label, key in (
                ("Type", "type"), ("Pages", "pages"), ("Publisher", "publisher"), ("Language", "language"),
                ("ISBN-10", "ISBN-10"), ("ISBN-13", "ISBN-13"),
            )
        )  # fmt: skip
        facts = f"<dl>{rows}</dl>"
    else:
        facts = "<p class=error>Error fetching product details!</p><p>Sorry, product details are currently unavailable for this book.</p>"
    title = html.escape(str(product["title"]))
    lead = html.escape(str(product["descriptionHtml"]))
    return shell(
        str(product["title"]),
        user,
        f"<h1>{title}</h1><p class=lead>{lead}</p><div class=grid><section><h2>Book Details</h2>{facts}</section>"
        f"<section><h2>Book Reviews</h2>{reviews_html(call)}</section></div>",
    )


def fetch_reviews(call: Call) -> tuple[int, Any]:
    """Reviews, asked for a second time when the first try fails."""
    for _ in range(2):
        status, found = get(
            host_of("REVIEWS_HOSTNAME", "reviews"), _port("REVIEWS_SERVICE_PORT"), "/reviews/0", call, 3.0
        )
        if status == 200:
            return status, found
    return status or 503, {"error": "Sorry, product reviews are currently unavailable for this book."}


def reviews_html(call: Call) -> str:
    status, found = fetch_reviews(call)
    if status != 200:
        return f"<p class=error>Error fetching product reviews!</p><p>{html.escape(found['error'])}</p>"
    out = []
    for review in found.get("reviews", []):
        stars = ""
        rating = review.get("rating")
        if rating and rating.get("stars"):
            shown = "★" * int(rating["stars"]) + "☆" * (5 - int(rating["stars"]))
            stars = f'<div class="stars" style="color:{html.escape(str(rating.get("color")))}">{shown}</div>'
        elif rating:
            stars = f"<div class=error>{html.escape(str(rating.get('error')))}</div>"
        text, who = html.escape(str(review["text"])), html.escape(str(review["reviewer"]))
        out.append(f"<blockquote>{text}<cite>{who}</cite>{stars}</blockquote>")
    version, pod = html.escape(str(found.get("version") or "")), html.escape(str(found.get("podname") or ""))
    return "".join(out) + f"<p class=served>Reviews served by: <b>reviews-{version}</b> · {pod}</p>"


def user_of(call: Call) -> str:
    for part in call.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "user":
            return value
    return ""


def handle(call: Call) -> object:
    path, _, query = call.path.partition("?")
    user = user_of(call) or (parse_qs(query).get("u") or [""])[0]
    if user:
        call.headers["end-user"] = user
    if path == "/health":
        return Answer(200, "Product page is healthy", "text/plain")
    if path == "/login":
        name = (parse_qs(call.body.decode(errors="replace")).get("username") or [""])[0]
        cookie = "".join(c for c in name if c.isalnum() or c in "-_.")
        return Answer(
            302,
            "",
            "text/plain",
            [("Location", "/productpage"), ("Set-Cookie", f"user={cookie}; Path=/; HttpOnly")],
        )
    if path == "/logout":
        return Answer(
            302, "", "text/plain", [("Location", "/productpage"), ("Set-Cookie", "user=; Path=/; Max-Age=0")]
        )
    if call.method not in ("GET", "HEAD"):
        return Answer(405, f"{call.method} is not served here\n", "text/plain", [("Allow", "GET, HEAD")])
    if path in ("/", "/index.html"):
        return Answer(200, front(user), "text/html; charset=utf-8")
    if path == "/productpage":
        return Answer(200, page(call, user), "text/html; charset=utf-8")
    parts = path.strip("/").split("/")
    if parts[:3] == ["api", "v1", "products"]:
        return products(call, parts[3:])
    return Answer(404, "not found\n", "text/plain")


def products(call: Call, rest: list[str]) -> object:
    if not rest:
        return PRODUCTS
    if not rest[0].isdigit() or int(rest[0]) >= len(PRODUCTS):
        return Answer(404, {"error": "no such product"})
    if len(rest) == 1:
        status, found = get(
            host_of("DETAILS_HOSTNAME", "details"), _port("DETAILS_SERVICE_PORT"), f"/details/{rest[0]}", call
        )
    elif rest[1] == "reviews":
        status, found = fetch_reviews(call)
    elif rest[1] == "ratings":
        status, found = get(
            host_of("RATINGS_HOSTNAME", "ratings"), _port("RATINGS_SERVICE_PORT"), f"/ratings/{rest[0]}", call
        )
    else:
        return Answer(404, {"error": "not found"})
    return Answer(status or 503, found or {"error": "currently unavailable"})


def _port(variable: str) -> int:
    text = os.environ.get(variable, "9080")
    return int(text) if text.isdigit() else 9080


if __name__ == "__main__":
    serve(handle, int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ.get("PORT", "9080")))
