"""productpage: the page of a book, made from details and reviews."""

from __future__ import annotations

import html
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from service import Answer, Call, get, host_of, main, port_of

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
:root{--ink:#1c1917;--dim:#6b645c;--line:#e7e2da;--paper:#fff;--back:#faf7f2;--mark:#0f766e;--night:#1f2a37;--bad:#b91c1c}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:flex;flex-direction:column;background:var(--back);color:var(--ink);
font:16px/1.6 system-ui,"DejaVu Sans",sans-serif}
.wide{width:100%;max-width:66rem;margin:0 auto;padding:0 1.5rem}
header{background:var(--night);color:#fff}
header .wide{display:flex;justify-content:space-between;align-items:center;min-height:3.75rem;gap:1rem;flex-wrap:wrap}
header a{color:#fff;text-decoration:none}.name{font-weight:700;font-size:1.1rem}.name span{color:#5eead4}
.who{display:flex;align-items:center;gap:.75rem}.who a{color:#99f6e4}
.face{display:inline-flex;width:2rem;height:2rem;border-radius:50%;align-items:center;justify-content:center;
background:#0f766e;color:#fff;font-weight:700;font-size:.85rem;text-transform:uppercase;flex:none}
.hero{background:linear-gradient(160deg,#ece4d6,#faf7f2 75%);border-bottom:1px solid var(--line);padding:2.5rem 0}
.hero .wide{display:flex;gap:2.25rem;align-items:center}
.cover{flex:none;width:9.5rem;height:13.5rem;border-radius:3px 9px 9px 3px;padding:1.15rem .9rem 1rem 1.35rem;color:#fdf6e3;
background:linear-gradient(90deg,#00000059 0 .45rem,transparent .6rem),linear-gradient(150deg,#7f1d1d,#431407);
box-shadow:0 1px 0 #fff4 inset,0 14px 28px -10px #43140799;display:flex;flex-direction:column;justify-content:space-between;
font-family:Georgia,"DejaVu Serif",serif;line-height:1.25}
.cover b{font-size:1.15rem;border-bottom:1px solid #fdf6e366;padding-bottom:.6rem}.cover small{font-size:.75rem;opacity:.85}
h1{margin:0 0 .5rem;font-size:2.4rem;line-height:1.15;letter-spacing:-.02em;font-family:Georgia,"DejaVu Serif",serif}
h2{font-size:1.1rem;margin:0 0 1rem}.lead{color:var(--dim);max-width:40rem;margin:0;font-size:1.05rem}
.by{color:var(--mark);font-weight:600;margin:0 0 .35rem;font-size:.95rem}
main{flex:1;padding:2rem 0}.grid{display:grid;grid-template-columns:1fr 1.7fr;gap:1.5rem;align-items:start}
section{background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:1.5rem;box-shadow:0 1px 3px #1c19170f}
dl{margin:0}dl div{display:flex;justify-content:space-between;gap:1rem;padding:.5rem 0;border-top:1px solid var(--line)}
dl div:first-child{border:0;padding-top:0}dl div:last-child{padding-bottom:0}dt{color:var(--dim)}dd{margin:0;font-weight:600;text-align:right}
.review{display:flex;gap:1rem;padding:1.1rem 0;border-top:1px solid var(--line)}.review:first-of-type{border:0;padding-top:0}
blockquote{margin:0 0 .35rem}cite{color:var(--dim);font-style:normal;font-size:.9rem}
.stars{font-size:1.3rem;line-height:1.3;letter-spacing:.12em}.stars i{color:#d6d0c6;font-style:normal}.error{color:var(--bad);font-weight:600;margin:0}
.served{display:flex;gap:.6rem;align-items:center;flex-wrap:wrap;color:var(--dim);font-size:.85rem;border-top:1px solid var(--line);margin:.3rem 0 0;padding-top:1rem}
.served b{background:#ccfbf1;color:#115e59;border-radius:99px;padding:.1rem .7rem}
form{display:flex;gap:.5rem}input{font:inherit;font-size:.9rem;padding:.3rem .7rem;border-radius:8px;border:1px solid #64748b;background:#fff;width:9rem}
button,.button{font:inherit;font-size:.9rem;font-weight:600;padding:.35rem 1rem;border:0;border-radius:8px;background:var(--mark);color:#fff;cursor:pointer;
text-decoration:none;display:inline-block}.quiet{background:#fff;color:var(--mark);border:1px solid var(--mark)}
:focus-visible{outline:3px solid #5eead4;outline-offset:2px}
footer{color:var(--dim);font-size:.85rem;border-top:1px solid var(--line);padding:1rem 0}
@media(max-width:46rem){.grid{grid-template-columns:1fr}.hero .wide{flex-direction:column;align-items:flex-start}h1{font-size:1.9rem}}
"""


def shell(title: str, user: str, body: str) -> str:
    """A whole HTML document; its first line is the doctype alone."""
    if user:
        name = html.escape(user)
        who = f'<span class="face">{name[:1]}</span><span>{name}</span><a href="/logout">Sign out</a>'
    else:
        who = (
            '<form action="/login" method="post"><input name="username" placeholder="user name"'
            ' aria-label="user name" autocomplete="username"><button>Sign in</button></form>'
        )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style></head>\n'
        f'<body><header><div class="wide"><a class="name" href="/"><span>★</span> Bookinfo</a><div class="who">{who}</div></div></header>\n'
        f'{body}\n<footer><div class="wide">A sample of four services, made to be meshed.</div></footer></body></html>\n'
    )


def hero(title: str, lead: str, by: str = "", more: str = "") -> str:
    """The head of a page; `lead` and `more` are HTML."""
    cover = f'<div class="cover" aria-hidden="true"><b>{html.escape(title)}</b><small>{html.escape(by)}</small></div>'
    line = f'<p class="by">{html.escape(by)}</p>' if by else ""
    return (
        f'<div class="hero"><div class="wide">{cover if by else ""}<div>{line}<h1>{html.escape(title)}</h1>'
        f'<p class="lead">{lead}</p>{more}</div></div></div>'
    )


def front(user: str) -> str:
    links = (
        '<p><a class="button" href="/productpage">Normal user</a> '
        '<a class="button quiet" href="/productpage?u=test">Test user</a></p>'
    )
    lead = "The page of one book, put together by four services: productpage, details, reviews and ratings."
    return shell("Simple Bookstore App", user, hero("Bookinfo", lead, more=links) + "<main></main>")


def page(call: Call, user: str) -> str:
    product = PRODUCTS[0]
    status, details = ask("details", "/details/0", call)
    if status == 200:
        rows = "".join(
            f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(str(details.get(key)))}</dd></div>"
            for label, key in (
                ("Type", "type"), ("Pages", "pages"), ("Publisher", "publisher"), ("Language", "language"),
                ("ISBN-10", "ISBN-10"), ("ISBN-13", "ISBN-13"),
            )
        )  # fmt: skip
        facts = f"<dl>{rows}</dl>"
    else:
        facts = (
            '<p class="error">Error fetching product details!</p>'
            "<p>Sorry, product details are currently unavailable for this book.</p>"
        )
    by = str(details.get("author", "")) if status == 200 else "William Shakespeare"
    top = hero(str(product["title"]), html.escape(str(product["descriptionHtml"])), by)
    body = (
        f'<main><div class="wide grid"><section><h2>Book Details</h2>{facts}</section>'
        f"<section><h2>Book Reviews</h2>{reviews_html(call)}</section></div></main>"
    )
    return shell("Simple Bookstore App", user, top + body)


_results: Counter[tuple[str, int]] = Counter()


def ask(service: str, path: str, call: Call, timeout: float = 10.0) -> tuple[int, Any]:
    """Ask one of the other services; (status, body), counted for /metrics. Status 0: nobody answered."""
    name = service.upper()
    status, found = get(
        host_of(f"{name}_HOSTNAME", service), port_of(f"{name}_SERVICE_PORT"), path, call, timeout
    )
    _results[service, status] += 1
    return status, found


def metrics() -> str:
    """What published manifests announce with `prometheus.io/path`, in the Prometheus text format."""
    rows = [
        f'request_result_total{{destination_app="{app}",response_code="{status}"}} {count}\n'
        for (app, status), count in sorted(_results.items())
    ]
    return "# HELP request_result_total Results of requests\n# TYPE request_result_total counter\n" + "".join(
        rows
    )


def fetch_reviews(call: Call) -> tuple[int, Any]:
    """Reviews, asked for a second time when the first try fails."""
    for _ in range(2):
        status, found = ask("reviews", "/reviews/0", call, 3.0)
        if status == 200:
            return status, found
    return status or 503, {"error": "Sorry, product reviews are currently unavailable for this book."}


def reviews_html(call: Call) -> str:
    status, found = fetch_reviews(call)
    if status != 200:
        why = html.escape(str(found["error"]))
        return f'<p class="error">Error fetching product reviews!</p><p>{why}</p>'
    out = []
    for review in found.get("reviews", []):
        stars = ""
        rating = review.get("rating")
        if rating and rating.get("stars"):
            count = max(0, min(5, int(rating["stars"])))
            shown = "★" * count + f"<i>{'★' * (5 - count)}</i>"
            stars = f'<div class="stars" style="color:{html.escape(str(rating.get("color")))}" role="img" aria-label="{count} of 5 stars">{shown}</div>'
        elif rating:
            stars = f'<div class="error">{html.escape(str(rating.get("error")))}</div>'
        text, who = html.escape(str(review["text"])), html.escape(str(review["reviewer"]))
        face = f'<span class="face" aria-hidden="true">{who[:1]}{who[-1:]}</span>'
        out.append(
            f'<div class="review">{face}<div>{stars}<blockquote>{text}</blockquote><cite>{who}</cite></div></div>'
        )
    version, pod = html.escape(str(found.get("version") or "")), html.escape(str(found.get("podname") or ""))
    shown = f" <span>{pod}</span>" if pod else ""
    return "".join(out) + f'<p class="served">Reviews served by: <b>reviews-{version}</b>{shown}</p>\n'


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
    if path == "/metrics":
        return Answer(200, metrics(), "text/plain; version=0.0.4; charset=utf-8")
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
    if not (rest[0].isascii() and rest[0].isdigit() and len(rest[0]) < 10) or int(rest[0]) >= len(PRODUCTS):
        return Answer(404, {"error": "no such product"})
    if len(rest) == 1:
        status, found = ask("details", f"/details/{rest[0]}", call)
    elif rest[1] == "reviews":
        status, found = fetch_reviews(call)
    elif rest[1] == "ratings":
        status, found = ask("ratings", f"/ratings/{rest[0]}", call)
    else:
        return Answer(404, {"error": "not found"})
    return Answer(status or 503, found or {"error": "currently unavailable"})


if __name__ == "__main__":
    main(handle)
