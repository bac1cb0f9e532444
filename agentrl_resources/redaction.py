"""Takes personal data and secrets out of text before it is stored.

Found by their form: e-mail addresses, phone numbers, IBANs, payment cards, US social security numbers, keys and
passwords. Checksums (mod 97 for IBANs, Luhn for cards) and the usual groupings keep order numbers, amounts, dates and
day counts out of it. Names and postal addresses have no form of their own and are not found.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

Span = tuple[int, int]
"""Where in the text the part to take out begins and ends."""


def redact(text: str) -> tuple[str, Counter[str]]:
    """The text with personal data replaced by its kind (`[email]`, `[card]`...), and how many there were of each kind.

    Redacting twice changes nothing more.
    """
    found: Counter[str] = Counter()
    return _redact(text, found), found


def redact_json(value: Any) -> tuple[Any, Counter[str]]:
    """`redact` for every string inside a JSON value; keys, numbers and the shape stay."""
    found: Counter[str] = Counter()

    def visit(node: Any) -> Any:
        if isinstance(node, str):
            return _redact(node, found)
        if isinstance(node, dict):
            return {key: visit(child) for key, child in node.items()}
        if isinstance(node, list):
            return [visit(child) for child in node]
        return node

    return visit(value), found


def _redact(text: str, found: Counter[str]) -> str:
    before = text if len(text) < _SHORTEST else None
    while text != before:  # what stood close to a match may only show once that is gone
        before = text
        for kind, hint, pattern, span_of in _RULES:
            if hint.search(text):
                text = _replace(text, kind, filter(None, map(span_of, pattern.finditer(text))), found)
    return text


def _replace(text: str, kind: str, spans: Iterator[Span], found: Counter[str]) -> str:
    pieces, position = [], 0
    for start, end in spans:
        pieces += [text[position:start], f"[{kind}]"]
        position = end
        found[kind] += 1
    return "".join(pieces) + text[position:]


# --- which part of a match goes ---------------------------------------------------------------------------------------


def _whole(match: re.Match[str]) -> Span | None:
    return match.span()


def _value(match: re.Match[str]) -> Span | None:
    return match.span("value")


def _card(match: re.Match[str]) -> Span | None:
    """Luhn: every second digit from the right doubled, digits summed, the total divisible by ten."""
    digits = [int(digit) for digit in match.group() if digit.isdigit()][::-1]
    total = sum(digits[0::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return match.span() if total % 10 == 0 else None


def _iban(match: re.Match[str]) -> Span | None:
    """The longest run of groups that satisfies ISO 7064 mod 97-10: a capitalised word may follow the number."""
    groups = list(re.finditer(r"[A-Z0-9]+", match.group()))
    for last in reversed(groups):
        iban = match.group()[: last.end()].replace(" ", "")
        if len(iban) >= 15 and int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1:
            return match.start(), match.start() + last.end()
    return None


def _international_phone(match: re.Match[str]) -> Span | None:
    """Groups up to the eleventh digit: a number that follows after a blank is not part of the phone number."""
    digits = -2 if match.group().startswith("00") else 0
    for group in re.finditer(r"\d+\)?", match.group()):
        digits += sum(c.isdigit() for c in group.group())
        if digits >= 11:
            break
    return (match.start(), match.start() + group.end()) if 8 <= digits <= 15 else None


# --- what is looked for, in this order --------------------------------------------------------------------------------

_SHORTEST = len("a@b.co")

# Nothing begins or ends inside a word, a decimal number or an identifier such as `order-5550123`.
_BEGIN = r"(?<![\w+@-])(?<!\d[.,])"
_END = r"(?![\w@])(?![.,-]\d)"

_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_PROVIDER_KEY = r"""(?<![\w-])(?:
    sk-[\w-]{16,} | [sr]k_(?:live|test)_\w{16,} | gh[opusr]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{16,}
  | hf_\w{20,} | xox[abopr]-[\w-]{10,} | (?:AKIA|ASIA)[A-Z0-9]{16}\b | AIza[\w-]{30,}
  | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                                               # JSON web token
)"""
_NAMED_SECRET = r"""\b(?:
    (?:password|passwd|pwd|passcode|api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token)["']?\s*[:=]\s*["']?
  | bearer\s+(?=\S{16})
)(?P<value>[^\s"'\[,;]{6,})"""
_EMAIL = r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"
_IBAN = _BEGIN + r"[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?(?![\w@])"
_CARD = _BEGIN + r"[2-6]\d{3}(?P<gap>[ -]?)(?:\d{4}(?P=gap)\d{4}(?P=gap)\d{1,7}|\d{6}(?P=gap)\d{4,5})" + _END
_SOCIAL_SECURITY = _BEGIN + r"\d{3}-\d{2}-\d{4}" + _END
_INTERNATIONAL_PHONE = _BEGIN + r"(?:\+|00(?!\d\d \d{4} ))[1-9]\d{0,14}(?:[ .-]?\(?\d{1,14}\)?){0,7}" + _END
_NATIONAL_PHONE = rf"""{_BEGIN}(?:
    (?:1[ .-])?(?:\(\d{{3}}\)[ .-]?|[2-9]\d{{2}}[.-])\d{{3}}[ .-]\d{{4}}          # (555) 123-4567, 555-123-4567
  | 0[1-9](?P<gap>[ .-])\d\d(?:(?P=gap)\d\d){{3}} | 0[1-9]\d{{8}}               # 06 12 34 56 78, 0612345678
  | 0\d{{2,4}}[ /-]\d{{6,8}} | 0\d\d[ -]\d{{4}}[ -]\d{{4}}                        # 07911 123456, 020 7946 0958
  | 0\d{{3}}[ -]\d{{3}}[ -]\d{{3,4}}                                           # 0161 496 0000
){_END}"""

# Kind, a cheap sign that it may be there at all (most text holds none), the pattern, and which part of a match goes.
_RULES: list[tuple[str, re.Pattern[str], re.Pattern[str], Callable[[re.Match[str]], Span | None]]] = [
    (kind, re.compile(hint), re.compile(pattern, flags), span_of)
    for kind, hint, pattern, flags, span_of in (
        ("secret", "-----BEGIN", _PRIVATE_KEY, re.DOTALL, _whole),
        ("secret", "sk-|[rs]k_|gh[opusr]_|github_|glpat|hf_|xox|A[KS]IA|AIza|eyJ", _PROVIDER_KEY, re.VERBOSE, _whole),
        ("secret", "[:=]|[Bb]earer", _NAMED_SECRET, re.VERBOSE | re.IGNORECASE, _value),
        ("email", "@", _EMAIL, re.NOFLAG, _whole),
        ("iban", r"[A-Z]{2}\d\d", _IBAN, re.NOFLAG, _iban),
        ("card", r"\d{4}[ -]?\d{4}", _CARD, re.NOFLAG, _card),
        ("social_security", r"-\d\d-", _SOCIAL_SECURITY, re.NOFLAG, _whole),
        ("phone", r"\+[1-9]|00[1-9]", _INTERNATIONAL_PHONE, re.NOFLAG, _international_phone),
        ("phone", r"\d[ .)-]{0,2}\d{3}[ .-]?\d|0[1-9]", _NATIONAL_PHONE, re.VERBOSE, _whole),
    )
]
