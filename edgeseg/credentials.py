"""Names and passwords in addresses, taken out before anybody else sees them.

Cameras are addressed with a password in the address (``rtsp://user:password@host``), in its query (``?token=...``), in
its path (``/user=a&password=b``), or as an element's property in GStreamer's text (``user-pw=...``). Passwords need not
be escaped as they should be: ``@``, ``/``, ``?`` and ``#`` in them are taken for a part of the password.
"""

from __future__ import annotations

import re

__all__ = ["MASK", "without_credentials"]

MASK = "***"
"""What is shown in the place of a secret."""

# An address ends with its quote, or at white space where it is in none.
_ADDRESS = re.compile(
    r"""(?P<quote>["'])?(?P<scheme>\b[a-z][a-z0-9+.-]+:/+)
    (?P<rest>(?(quote).*?(?=(?P=quote)(?:[\s,;:)!]|$))|[^\s"']\S*))""",
    re.IGNORECASE | re.VERBOSE,
)
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.%]+\])(?::\d{1,5})?(?:/.*)?", re.IGNORECASE)
_PROPERTY = re.compile(
    r"""(?P<name>(?<![a-z])(?:[a-z]+[-_])*
        (?:user|usr|login|pass(?:w(?:or)?d|phrase|code)?|pwd?|psw|secret|token|credentials?|auth|signature|sig|api-?key)
        (?:[-_]?(?:id|name|pw|key))?|\b(?:proxy-id|cookies|extra-headers))
    (?P<equals>\s*=\s*)(?:\(\w+\)\s*)?
    (?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!\*\*\*(?:[\s&;"']|$))(?:\\.|(?!["'](?:\s|$))\S)+)""",
    re.IGNORECASE | re.VERBOSE,
)
_HARMLESS = re.compile(
    "channel|ch|cam(era)?|codec|compression|format|fps|framerate|h(eight)?|mode|profile|quality|rate|res(olution)?|"
    "size|stream(type)?|subtypes?|transport(mode)?|type|udp|tcp|unicast|video|w(idth)?",
    re.IGNORECASE,
)
"""Keys of a query that say which picture, not who asks."""


def without_credentials(text: str, *, properties: bool = True) -> str:
    """Take out user names and passwords of the addresses in a text, and mask secret values.

    Args:
        text: An address, a GStreamer pipeline, or a sentence that quotes one.
        properties: Whether to mask properties such as ``user-pw=...`` outside of an address's query too.

    Returns:
        The text; the same where it holds no credentials.

    Example:
        >>> without_credentials("rtsp://user:pa@ss/word@host:554/live?channel=1&token=abc")
        'rtsp://host:554/live?channel=1&token=***'
    """
    text = _ADDRESS.sub(lambda match: (match["quote"] or "") + match["scheme"] + _clean(match["rest"]), text)
    return _PROPERTY.sub(rf"\g<name>\g<equals>{MASK}", text) if properties else text


def _clean(rest: str) -> str:
    """Clean what follows ``scheme://``. An ``@`` behind a ``?`` belongs to a query only where all before looks so."""
    place, mark, query = re.fullmatch(r"([^?#]*)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    place = _without_user(place)
    if "@" in query and not (re.match(r"[\w.-]+=", query) and _HOST.fullmatch(place)):
        return _clean(rest.rpartition("@")[2])
    return place + mark + re.sub(r"[^&;#?]+", _mask_pair, query)


def _without_user(place: str) -> str:
    """Cut off what stands before the last ``@``, unless that can only be a host and a path."""
    before, at, after = place.rpartition("@")
    host_and_path = "/" in before and not re.search("[:@]", before)
    return place if host_and_path or not at else after


def _mask_pair(match: re.Match[str]) -> str:
    key, equals, _ = match.group().partition("=")
    if _HARMLESS.fullmatch(key):
        return match.group()
    return f"{key}={MASK}" if equals else MASK
