"""Removal of secrets from text: the one mechanism for messages, logs, records and reports.

Three kinds of secrets are found: those of URLs (user and password, query, a fragment with values), those
that a name announces (``password=``, ``Authorization:``, access keys of AWS), and those that this process
knows by heart: values of its environment, of storage options, and of places that it opened.
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

HIDDEN = "***"
"""Text that takes the place of a secret."""
SHORTEST = 8
"""Least number of characters of a secret that is known by heart; a shorter word may be any word."""
_REMEMBERED = 4096
"""Number of secrets that a process remembers; the oldest are forgotten first."""

_SLASHES = r"://|:\\+/\\+/|%(?:25)*3A%(?:25)*2F%(?:25)*2F"
"""The mark behind a scheme: plain, as JSON may write it, and in percent code, also of several layers."""
_MARK = re.compile(f"({_SLASHES})", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}$")
_CLOSING = re.compile(r"[)\]}>.,;:'!]{0,3}$")
"""Punctuation of the text around a URL."""
_ENDS = {
    "'": re.compile(r"(?<!\\)'|[\s<>]"),
    '"': re.compile(r'\\?"|[\s<>]'),
    "`": re.compile(r"[`\s<>]"),
    "": re.compile(r'[\s<>"`]'),
}
"""What ends a URL, by the quotation mark before it."""
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes of Azure, which write the container where other URLs have the user."""


class _Marks:
    """Marks inside a URL, in plain writing or in percent code."""

    def __init__(self, at: str, colon: str, slash: str, query: str, fragment: str, equals: str) -> None:
        self.at, self.equals = re.compile(at, re.I), re.compile(equals, re.I)
        self.authority = re.compile(f"(?:{slash}|{query}|{fragment})", re.I)
        self.port = re.compile(f"^[^:%]*(?:{colon})[0-9]{{1,5}}$|^\\[", re.I)
        self.colon = re.compile(colon, re.I)
        self.query, self.fragment = re.compile(query, re.I), re.compile(fragment, re.I)


_PLAIN = _Marks("@", ":", r"\\*/", r"\?", "#", "=")
_CODED = _Marks(
    "%(?:25)*40|@", "%(?:25)*3A|:", "%(?:25)*2F|/", r"%(?:25)*3F|\?", "%(?:25)*23|#", "%(?:25)*3D|="
)

_SECRET_NAME = (
    r"(?:secret|passw(?:or)?d|passphrase|token|signature|credential|authorization|cookie"
    r"|auth[_-]?string|(?:api|access|account|shared|private)[_-]?key)"
)
_NAMED = re.compile(
    rf"(?P<name>(?<![\w.-])[\w.-]{{0,60}}?{_SECRET_NAME}[\w.-]{{0,60}}"
    r"(?:\\?[\"']?\s{0,4}[=:]\s{0,4}|[\"']\s{0,4},\s{0,4}(?=b?[\"'])))"
    r"(?P<value>\\\"(?:(?!\\\").)*\\\"|b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'"
    r"|\\?[\"']?(?:(?:basic|bearer|digest|negotiate|token|aws4-hmac-sha256)\s+)?[^\s\"',;&)}\]]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie)(:\s{0,4})[^\"'\r\n]+", re.IGNORECASE)
_AUTHORIZED = re.compile(
    r"\b(basic|bearer)(\s{1,4})(?=[^\s]{0,400}[0-9=+/])[A-Za-z0-9+/_.~=-]{8,}", re.IGNORECASE
)
_SECRET_PART = re.compile(rf"{_SECRET_NAME}|^(?:sig|key|code|pw|pwd|sid|jwt)$|^auth|session", re.IGNORECASE)
"""Names of values in a query that are secrets."""
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,124}\b")
_SECRET_VARIABLE = re.compile(
    r"SECRET|TOKEN|PASSW|CREDENTIAL|AUTH_STRING|CONNECTION_STRING|(?:API|ACCESS|ACCOUNT|PRIVATE)_KEY"
)
_PLAIN_OPTIONS = re.compile(
    r"(?:.*_)?(?:url|region|region_name|profile|project|account_name|endpoint|version|style|anon|consistency)$"
)
"""Names of options of file systems whose values are no secrets."""


def redact_text(text: str) -> str:
    """Return a text with :data:`HIDDEN` in place of every secret that is found in it; paths stay."""
    text = _redact_announced(text)
    for secret in _known_secrets():
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def holds_secrets(text: str) -> bool:
    """Tell whether a text shows by itself that it holds a secret: in a URL, or behind a name.

    A query whose names and values look harmless (``?id=42``) is hidden where it is shown, but is no secret.
    """
    place, query, pairs = text.partition("?")
    harmless = "@" not in pairs and not any(_is_secret(*pair) for pair in _pairs(pairs))
    text = place if query and harmless and _MARK.search(place) else text
    return _redact_announced(text) != text


def _redact_announced(text: str) -> str:
    """Redact a text's URLs, and what names of secrets announce."""
    text = _AWS_KEY.sub(HIDDEN, _redact_urls(text))
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    return _AUTHORIZED.sub(rf"\1\2{HIDDEN}", _NAMED.sub(_hide_named, text))


def _hide_named(match: re.Match[str]) -> str:
    value = match["value"].removeprefix("b")
    mark = re.match(r"\\?[\"']|", value)
    quotation = mark[0] if mark else ""
    return f"{match['name']}{quotation}{HIDDEN}{quotation}"


def redact_url(url: str) -> str:
    """Return one URL, all of the text, without user, password, query and values in its fragment."""
    mark = _MARK.search(url)
    if mark is None:
        return url
    return url[: mark.end()] + _redact_rest(_scheme_before(url, mark), mark[0], url[mark.end() :])


def redact_values(value: Any, harmless: bool = True) -> Any:
    """Return plain values, with the secrets of URLs in every text of them removed, names included.

    Args:
        value: the values.
        harmless: whether queries without a secret (:func:`holds_secrets`) are hidden, too.
    """
    if isinstance(value, str):
        return _redact_urls(value) if harmless or holds_secrets(value) else value
    if isinstance(value, Mapping):
        return {
            redact_values(name, harmless): redact_values(inner, harmless) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        inner = (redact_values(one, harmless) for one in value)
        return type(value)(inner) if type(value) in (list, tuple) else value
    return value


def _redact_urls(text: str) -> str:
    """Redact every URL in a text; its end is what ends it in the text."""
    parts, at = [], 0
    while (mark := _MARK.search(text, at)) is not None:
        parts.append(text[at : mark.end()])
        at = mark.end()
        scheme = _scheme_before(text, mark)
        if scheme.lower() == "file" and mark[0] == "://":
            continue
        before = text[mark.start() - len(scheme) - 1 : mark.start() - len(scheme)]
        found = _ENDS[before if before in _ENDS else ""].search(text, at)
        end = found.start() if found else len(text)
        closing = _CLOSING.search(text[at:end])
        end -= len(closing[0]) if closing else 0
        parts.append(_redact_rest(scheme, mark[0], text[at:end]))
        at = end
    return "".join((*parts, text[at:]))


def _scheme_before(text: str, mark: re.Match[str]) -> str:
    """Return the scheme that stands before a mark; empty where there is none."""
    found = _SCHEME.search(text[max(0, mark.start() - 31) : mark.start()])
    return found[0] if found else ""


def _redact_rest(scheme: str, mark: str, rest: str) -> str:
    """Return what follows a URL's scheme without its secrets, those of URLs in its path included."""
    marks = _marks_like(mark)
    pieces = _MARK.split(_hide_query(marks, _hide_user(scheme, marks, rest)))
    for i in range(2, len(pieces), 2):
        inner, marks = _SCHEME.search(pieces[i - 2][-31:]), _marks_like(pieces[i - 1])
        pieces[i] = _hide_query(marks, _hide_user(inner[0] if inner else "", marks, pieces[i]))
    return "".join(pieces)


def _marks_like(mark: str) -> _Marks:
    return _CODED if "%" in mark else _PLAIN


def _hide_query(marks: _Marks, rest: str) -> str:
    """Hide a query, or else a fragment that holds values; one that is part of a name stays."""
    query, fragment = marks.query.search(rest), marks.fragment.search(rest)
    until = query.start() if query else len(rest)
    if fragment and fragment.start() < until and marks.equals.search(rest, fragment.end(), until):
        query = fragment
    return rest if query is None or query.end() == len(rest) else rest[: query.end()] + HIDDEN


def _hide_user(scheme: str, marks: _Marks, rest: str) -> str:
    """Hide user and password, also one with a slash or a question mark that is not in percent code."""
    found = marks.authority.search(rest)
    authority = rest[: found.start()] if found else rest
    last = _last(marks.at, authority)
    if (
        last is not None
        and scheme.lower() in _CONTAINERS
        and not marks.colon.search(authority[: last.start()])
    ):
        return rest
    if last is None and marks.colon.search(authority) and not marks.port.search(authority):
        last = _last(marks.at, rest)
    return rest if last is None else HIDDEN + rest[last.start() :]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)


# Secrets that this process knows by heart


_known: dict[str, None] = {}
_knowing = threading.Lock()


def remember_secrets(*secrets: str) -> None:
    """Hide these texts from now on wherever they appear, also in percent code; short ones are left alone."""
    with _knowing:
        for secret in secrets:
            if len(secret) >= SHORTEST and HIDDEN not in secret:
                _known.pop(secret, None)
                _known[secret] = None
        for old in list(_known)[: max(0, len(_known) - _REMEMBERED)]:
            del _known[old]


def remember_place(place: str) -> None:
    """Hide a URL's password and signatures from now on, however a library writes them.

    Libraries name what they could not open without its scheme, or write it in another code.
    """
    mark = _MARK.search(place)
    if mark is None:
        return
    rest = place[mark.end() :]
    shown = _hide_user(_scheme_before(place, mark), _PLAIN, rest)
    if shown.startswith(f"{HIDDEN}@"):
        user, colon, password = rest[: len(rest) - len(shown) + len(HIDDEN)].partition(":")
        remember_secrets(password if colon else user)
    query = re.split("[?#]", shown, maxsplit=1)[1:]
    remember_secrets(*(value for name, value in _pairs("".join(query)) if _is_secret(name, value)))


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a query or a fragment; a value without a name is one."""
    for pair in filter(None, re.split("[?&#;]", query)):
        name, equals, value = pair.partition("=")
        yield (name, value) if equals else ("", name)


def _is_secret(name: str, value: str) -> bool:
    """Tell whether a value of a query has a secret's name, or looks as if it was drawn."""
    if _SECRET_PART.search(name):
        return True
    return len(value) >= 16 and any(map(str.isdigit, value)) and any(map(str.isalpha, value))


def remember_options(options: Mapping[str, Any]) -> None:
    """Hide the values of a file system's options from now on, but for addresses, regions and the like."""
    remember_secrets(*_secrets_in(options))


def _secrets_in(options: Any, name: str = "") -> Iterator[str]:
    if isinstance(options, Mapping):
        for inner, value in options.items():
            yield from _secrets_in(value, str(inner))
    elif isinstance(options, Sequence) and not isinstance(options, str):
        for value in options:
            yield from _secrets_in(value, name)
    elif isinstance(options, str) and not _PLAIN_OPTIONS.match(name):
        yield options


def _known_secrets() -> Iterator[str]:
    """Yield every writing of every known secret, longer ones first."""
    variables = [
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= SHORTEST and not value.startswith(("/", "~"))
    ]
    with _knowing:
        every = [*variables, *_known]
    for secret in sorted(every, key=len, reverse=True):
        yield from _writings(secret)


@lru_cache(maxsize=2 * _REMEMBERED)
def _writings(secret: str) -> tuple[str, ...]:
    """Return a secret as it is, in percent code, and of ``user:password`` also the password and Base64."""
    plain = unquote(secret)
    texts = [secret, plain, unquote_plus(secret), quote(plain, safe=""), quote(plain)]
    user, colon, password = plain.partition(":")
    if colon and user and " " not in plain:
        texts += [base64.b64encode(plain.encode(errors="surrogateescape")).decode(), password]
    return tuple(text for text in dict.fromkeys(texts) if len(text) >= SHORTEST)
