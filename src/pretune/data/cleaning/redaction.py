"""Replaces what identifies a person by a tag: addresses, numbers of telephones, identities and bank cards."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

PiiType = Literal["email", "national_id", "card", "phone", "ip"]
TAGS: dict[PiiType, str] = {
    "email": "[EMAIL]", "national_id": "[ID]", "card": "[CARD]", "phone": "[PHONE]", "ip": "[IP]",
}  # fmt: skip

# Python's \w holds Chinese characters, and 电话13812345678 must be found: so bounds name ASCII only.
_LEFT_BOUNDARY, _RIGHT_BOUNDARY = r"(?<![A-Za-z0-9_.+-])", r"(?![A-Za-z0-9_]|\.[0-9])"
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_IDENTITY = re.compile(
    rf"{_LEFT_BOUNDARY}(?:[1-8]\d{{16}}[\dXx]|(?!000|666|9)\d{{3}}-(?!00)\d{{2}}-(?!0000)\d{{4}}){_RIGHT_BOUNDARY}(?!-\d)"
)
_CARD = re.compile(
    rf"{_LEFT_BOUNDARY}(?:[3-6]\d{{12,18}}"
    rf"|[3-6]\d{{3}}([ -])\d{{4}}\1\d{{4}}\1\d{{1,4}}(?:\1\d{{1,3}})?"
    rf"|3[47]\d\d([ -])\d{{6}}\2\d{{5}})"
    rf"{_RIGHT_BOUNDARY}(?![ -]\d)"
)
_PHONE = re.compile(
    rf"(?<![A-Za-z0-9_.-])(?:\+|00)86[ -]?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_RIGHT_BOUNDARY}"
    rf"|{_LEFT_BOUNDARY}1[3-9]\d([ -]?)\d{{4}}\1\d{{4}}{_RIGHT_BOUNDARY}(?!号(?!码))(?!-\d)"
    rf"|{_LEFT_BOUNDARY}0(?:10|2\d|[3-9]\d\d)[ -]\d{{7,8}}{_RIGHT_BOUNDARY}(?!-\d{{6}})"
    rf"|[(（]0(?:10|2\d|[3-9]\d\d)[)）] ?\d{{4}}[ -]?\d{{3,4}}{_RIGHT_BOUNDARY}"
    rf"|(?<![A-Za-z0-9_.+-])\+(?!86)[1-9]\d{{0,2}}(?:[ .-]?\(?\d{{1,4}}\)?){{2,5}}{_RIGHT_BOUNDARY}"
    rf"|{_LEFT_BOUNDARY}(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[.-]\d{{4}}"
    rf"{_RIGHT_BOUNDARY}(?!-\d)"
)
_IP4 = rf"(?<![A-Za-z0-9_.-])(?:\d{{1,3}}\.){{3}}\d{{1,3}}{_RIGHT_BOUNDARY}(?!-\d)"
_IP6 = r"(?<![A-Za-z0-9_:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![A-Za-z0-9_:])"
_IP = re.compile(f"{_IP4}|{_IP6}")
_VERSION_PREFIX = re.compile(r"(?:\b[Vv](?:er(?:sion)?)?\.? ?|版本|§ ?|第|[Ss]ection |[Cc]hapter )$")

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_REGIONS = frozenset(
    f"{region}"
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83))
    for region in range(first, last + 1)
)


def redact(text: str, tags: Mapping[PiiType, str]) -> tuple[str, Counter[str]]:
    """The text with the types that ``tags`` names replaced by their tags, and how many of each there were."""
    counts: Counter[str] = Counter()
    for pii_type, (prefilter, pattern, is_valid) in _DETECTORS.items():
        if pii_type not in tags or not prefilter.search(text):
            continue

        def replace(
            match: re.Match[str], pii_type: PiiType = pii_type, is_valid: _MatchValidator = is_valid
        ) -> str:
            if not is_valid(match):
                return match[0]
            counts[pii_type] += 1
            return tags[pii_type]

        text = pattern.sub(replace, text)
    return text, counts


def is_valid_luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_valid_chinese_id(number: str) -> bool:
    """Region, date of birth and check digit of GB 11643-1999 (ISO 7064, MOD 11-2)."""
    year, month, day = int(number[6:10]), int(number[10:12]), int(number[12:14])
    if number[:2] not in _REGIONS or not (1850 <= year <= 2099 and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    rest = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False)) % 11
    return number[17].upper() == "10X98765432"[rest]


def _is_identity(match: re.Match[str]) -> bool:
    return "-" in match[0] or is_valid_chinese_id(match[0])


def _is_card(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match[0])
    lengths = {"3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 17, 18, 19)}[digits[0]]
    return len(digits) in lengths and len(set(digits)) > 1 and is_valid_luhn(digits)


def _is_phone(match: re.Match[str]) -> bool:
    return 7 <= sum(c.isdigit() for c in match[0]) <= 15


def _is_ip_address(match: re.Match[str]) -> bool:
    """A valid address; four small numbers are a section or a version."""
    try:
        ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if ":" in match[0]:
        return True
    before = match.string[max(0, match.start() - 10) : match.start()]
    return max(map(int, match[0].split("."))) >= 20 and not _VERSION_PREFIX.search(before)


def _accept_any(match: re.Match[str]) -> bool:
    return True


_MatchValidator = Callable[[re.Match[str]], bool]
_DETECTORS: dict[PiiType, tuple[re.Pattern[str], re.Pattern[str], _MatchValidator]] = {
    "email": (re.compile("@"), _EMAIL, _accept_any),
    "national_id": (re.compile(r"\d{17}|\d{3}-\d\d-\d{4}"), _IDENTITY, _is_identity),
    "card": (re.compile(r"\d{4}[ -]?\d{4}"), _CARD, _is_card),
    "phone": (re.compile(r"\d{4}"), _PHONE, _is_phone),
    "ip": (re.compile(r"\d\.\d{1,3}\.|:[0-9A-Fa-f]{0,4}:"), _IP, _is_ip_address),
}
"""For each kind a cheap test, the pattern, and what a match must hold; longer numbers before shorter ones."""
