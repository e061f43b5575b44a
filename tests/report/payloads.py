"""Sixty strings that somebody could put in a name, and a reader of the page's structure."""

from __future__ import annotations

from html.parser import HTMLParser

PAYLOADS: tuple[str, ...] = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "</title><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<img src=//203.0.113.9/leak>",
    "<svg onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.pwned=1>",
    "<iframe src=javascript:window.pwned=1></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<object data=http://203.0.113.9/x></object>",
    "<embed src=http://203.0.113.9/x>",
    "<link rel=stylesheet href=http://203.0.113.9/x.css>",
    "<base href=http://203.0.113.9/>",
    "<meta http-equiv=refresh content='0;url=http://203.0.113.9/'>",
    "<form action=http://203.0.113.9/><button>Go</button></form>",
    "<video src=http://203.0.113.9/v autoplay></video>",
    "<body onload=window.pwned=1>",
    "<details open ontoggle=window.pwned=1>",
    "<marquee onstart=window.pwned=1>",
    "<a href='javascript:window.pwned=1'>click</a>",
    "javascript:window.pwned=1",
    "data:text/html,<script>window.pwned=1</script>",
    "\" onmouseover=\"window.pwned=1",
    "' onmouseover='window.pwned=1",
    "` onmouseover=`window.pwned=1",
    "\"><img src=x onerror=window.pwned=1>",
    "'><img src=x onerror=window.pwned=1>",
    "--><script>window.pwned=1</script><!--",
    "]]><script>window.pwned=1</script><![CDATA[",
    "<!--",
    "<![CDATA[",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#60;script&#62;window.pwned=1",
    "{{ 7 * 7 }}",
    "{{ ''.__class__.__mro__ }}",
    "{% include 'page.css' %}",
    "{# gone #}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "%s %n %(name)s {0} {name}",
    "=1+1+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1-1",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://203.0.113.9\x07link\x1b]8;;\x07",
    "null\x00byte",
    "bell\x07back\x08space\x7f",
    "new\nline\r\nreturn\ttab",
    "line\u2028separator\u2029paragraph\x85next",
    "right\u202eto left\u202c",
    "\u2066isolate\u2069 \u200fmark\u200e \u061c",
    "zero\u200bwidth\u200djoin\ufeffbom\u2060",
    "tag\U000e0041\U000e0042 private\ue000 unassigned\U0003fffd",
    "Z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307algo" * 8,
    "$\\frac{1}{0}$ $unclosed \\alpha_{",
    "expression(alert(1)); background:url(http://203.0.113.9/x)",
    "../../../../etc/passwd",
    "W" * 4000,
    "wide \u4e2d\u6587\u5b57" * 800,
)  # fmt: skip

_TAGS = """html head meta title style body div nav ol ul li a span main header h1 h2 h3 dl dt dd p
    strong section figure figcaption b img table thead tbody tr th td br article pre footer i"""
_ATTRIBUTES = """lang charset http-equiv content name class id href rel src alt width height style
    role scope aria-label tabindex colspan rowspan"""
ALLOWED_TAGS = frozenset(_TAGS.split())
ALLOWED_ATTRIBUTES = frozenset(_ATTRIBUTES.split())
VOID = frozenset({"meta", "img", "br"})


class Structure(HTMLParser):
    """Tags, attributes and text of a page; complains about what does not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.pieces: list[str] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        self.problems.append(f"comment {data!r}")

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


def unsafe(page: Structure) -> list[str]:
    """Name all that a report may not hold."""
    found = list(page.problems)
    found += [f"<{tag}>" for tag in sorted(page.tags - ALLOWED_TAGS)]
    for tag, name, value in page.attributes:
        if name not in ALLOWED_ATTRIBUTES:
            found.append(f"<{tag} {name}>")
        if name == "src" and not value.startswith("data:image/"):
            found.append(f"<{tag} src={value[:40]}>")
        if name == "href" and not value.startswith(("#", "https://arxiv.org/abs/")):
            found.append(f"<{tag} href={value[:40]}>")
        if name == "style" and not value.startswith("width: "):
            found.append(f"<{tag} style={value[:40]}>")
    return found
