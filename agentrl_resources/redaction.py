"""Takes personal data and secrets out of what is stored, and keeps apart who was who.

Found by their form: e-mail addresses, phone numbers, IBANs, payment cards, US social security numbers, keys and
passwords. Checksums (mod 97 for IBANs, Luhn for cards) and the usual groupings keep order numbers, amounts, dates and
day counts out of it. Names and postal addresses have no form of their own and are not found.

Each value becomes its kind and a number, `[email 1]`. Within one scope (a trace, a preference row) the same value has
the same number and another value another one, so that an agent that wrote to the wrong customer is still seen to have
done so. Between scopes the numbers mean nothing: `[email 1]` of another trace may be anybody.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from agentrl_resources.files import digest_bytes

Span = tuple[int, int]
"""Where in the text the part to take out begins and ends."""


class Redactor:
    """Redacts the parts of one scope.

    `scope` is everything that will be redacted with it, as JSON or text. Placeholders that stand there already, from an
    earlier redaction or because somebody typed one, stay as they are, and no new value gets their number; so redacting
    twice changes nothing. Numbers follow the order in which values are first met.

    `found` counts what was taken out by kind.
    """

    def __init__(self, scope: Any) -> None:
        self.found: Counter[str] = Counter()
        self._placeholders: dict[tuple[str, str], str] = {}
        self._taken = _placeholders_in(scope)
        self._last: Counter[str] = Counter()

    def redact(self, value: Any) -> Any:
        """The value with every string in it redacted, keys and JSON inside of strings too; the shape stays.

        A number that is a card's becomes its placeholder, a text. Of two keys that become the same, the second is
        marked, so that nothing is lost.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            redacted: dict[Any, Any] = {}
            for key, item in value.items():
                own = name = self.redact(key) if isinstance(key, str) else key
                while name in redacted:
                    name = f"{name} (again)"
                redacted[name] = self._under(own if own == key else "", item)
            return redacted
        if isinstance(value, list | tuple):
            return [self.redact(item) for item in value]
        if isinstance(value, int) and value >= 10**12 and _ISSUED.fullmatch(digits := str(value)):
            text = self._text(digits)
            return value if text == digits else text
        return value

    def _under(self, key: Any, item: Any) -> Any:
        """What stands under a key, which may say what it is: a password has no form of its own."""
        if not isinstance(item, str | int) or isinstance(item, bool) or not isinstance(key, str):
            return self.redact(item)
        text = str(item)
        if isinstance(item, str) and _SECRET_KEY.search(key) and _SECRET_VALUE.fullmatch(text):
            return self._placeholder("secret", text)
        redacted = self.redact(item)
        if redacted == item and _PHONE_KEY.search(key) and _PHONE_VALUE.fullmatch(text):
            return self._placeholder("phone", text)
        return redacted

    def _text(self, text: str) -> str:
        if text.lstrip()[:1] in ("{", "["):
            return self._json_text(text) if _is_json(text) else self._plain(text)
        return text if len(text) <= _SHORT and _holds_nothing(text) else self._plain(text)

    def _plain(self, text: str) -> str:
        before = text if len(text) < _SHORTEST else None
        while text != before:  # what stood close to a match may only show once that is gone
            before = text
            for kind, hint, pattern, span_of in _RULES:
                if hint.search(text):
                    text = self._replaced(text, kind, filter(None, map(span_of, pattern.finditer(text))))
        return text

    def _replaced(self, text: str, kind: str, spans: Iterator[Span]) -> str:
        pieces, position = [], 0
        for start, end in spans:
            pieces += [text[position:start], self._placeholder(kind, text[start:end])]
            position = end
        return "".join(pieces) + text[position:]

    def _json_text(self, text: str) -> str:
        """JSON as it is written, but for the strings and numbers that hold something.

        Its strings are redacted as what they stand for: `"\\nada@x.org"` is a new line and then an address.
        """
        pieces, position = [], 0
        key, key_end = "", -1
        for token in _JSON_TOKEN.finditer(text):
            written = token["value"]
            value = json.loads(written) if "\\" in written or written[0] != '"' else written[1:-1]
            if token["colon"]:
                redacted = self.redact(value)
                key, key_end = redacted if redacted == value else "", token.end()
            else:
                stands_under = not text[key_end : token.start()].strip() if key_end >= 0 else False
                redacted = self._under(key, value) if stands_under else self.redact(value)
            if redacted != value:
                pieces += [text[position : token.start("value")], json.dumps(redacted, ensure_ascii=text.isascii())]
                position = token.end("value")
        return "".join(pieces) + text[position:]

    def _placeholder(self, kind: str, value: str) -> str:
        if kind == "secret" and _WHOLE_EMAIL.fullmatch(value):
            kind = "email"  # who writes an address where a password belongs is still the same person
        self.found[kind] += 1
        identity = kind, _IDENTITY[kind](value)
        if identity not in self._placeholders:
            self._last[kind] += 1
            while f"[{kind} {self._last[kind]}]" in self._taken:
                self._last[kind] += 1
            self._placeholders[identity] = f"[{kind} {self._last[kind]}]"
        return self._placeholders[identity]


class Kept(Redactor):
    """Takes nothing out: for what an environment made, which is nobody's data and looks the same when a policy is asked
    live."""

    def redact(self, value: Any) -> Any:
        return value


def redact(value: Any) -> tuple[Any, Counter[str]]:
    """A text or JSON value redacted as one scope, and how often each kind was found."""
    redactor = Redactor(value)
    return redactor.redact(value), redactor.found


def pseudonym(identifier: str) -> str:
    """An identifier as it is, or its digest when it holds personal data: one of its own for each."""
    return digest_bytes(identifier.encode()) if redact(identifier)[1] else identifier


def _placeholders_in(value: Any) -> set[str]:
    found: set[str] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            if "[" in node or "\\" in node:
                # JSON inside of JSON may write the bracket as an escape
                found.update(_PLACEHOLDER.findall(node.replace("\\u005b", "[").replace("\\u005d", "]")))
        elif isinstance(node, dict):
            waiting += [*node, *node.values()]
        elif isinstance(node, list | tuple):
            waiting += node
    return found


_SHORT = 32


@lru_cache(maxsize=4096)
def _holds_nothing(text: str) -> bool:
    """The same keys, roles and names of tools stand in every trace: a third of the time without a second look."""
    return len(text) < _SHORTEST or not any(
        hint.search(text) and any(map(span_of, pattern.finditer(text))) for _, hint, pattern, span_of in _RULES
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


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


# --- when two are the same --------------------------------------------------------------------------------------------


def _digits(value: str) -> str:
    return "".join(str(int(c)) for c in value if c.isdecimal())


def _email(value: str) -> str:
    """Nobody tells two people apart by capitals in their addresses."""
    decoded = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), value)
    return unicodedata.normalize("NFC", decoded).lower()


def _phone(value: str) -> str:
    """`+` and all digits where the country is known: from `+` or `00`, or because only North America groups like that.

    `020 7946 0958` stays apart from `+44 20 7946 0958`: which country a number without one is of, nothing says.
    """
    digits = _digits(value)
    if value.lstrip().startswith("+"):
        return "+" + _digits(value.replace("(0)", ""))
    if digits.startswith("00"):
        return "+" + _digits(value.replace("(0)", "")).removeprefix("00")
    if digits.startswith("0"):
        return digits
    if len(digits) == 10 and digits != value:
        return "+1" + digits
    return "+" + digits if len(digits) >= 11 else digits


_IDENTITY: dict[str, Callable[[str], str]] = {
    "secret": lambda value: value.replace("\\n", "\n").strip(),
    "email": _email,
    "iban": lambda value: value.replace(" ", ""),
    "card": _digits,
    "social_security": _digits,
    "phone": _phone,
}
_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(_IDENTITY)}) [1-9][0-9]*\]")


# --- what is looked for, in this order --------------------------------------------------------------------------------

_SHORTEST = len("a@b.co")

# Nothing begins or ends inside a word, a decimal number or an identifier such as `order-5550123`.
# In text that was written as JSON a new line is `\\n`, whose `n` is no letter.
_BEGIN = r"(?:(?<![\w+@-])|(?<=\\[nrt]))(?<!\d[.,])"
_END = r"(?![\w@])(?![.,-]\d)"

_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_PROVIDER_KEY = r"""(?<![\w-])(?:
    sk-[\w-]{16,} | [sr]k_(?:live|test)_\w{16,} | gh[opusr]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{16,}
  | hf_\w{20,} | xox[abopr]-[\w-]{10,} | (?:AKIA|ASIA)[A-Z0-9]{16}\b | AIza[\w-]{30,}
  | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                                               # JSON web token
)"""
_SECRET_NAME = "(?:password|passwd|pwd|passcode|api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token)"
_NAMED_SECRET = rf"""\b(?:
    {_SECRET_NAME}["']?\s*[:=]\s*["']?
  | bearer\s+(?=\S{{16}})
)(?P<value>[^\s"'\[,;]{{6,}})"""
_LOCAL_PART = r"(?:[\w.+%-]|\\u[0-9a-fA-F]{4}){1,64}"
_DOMAIN = r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}"
_EMAIL = rf"(?:(?<![\w.+%-])(?<!\\(?=[nrt]))|(?<=\\[nrt])){_LOCAL_PART}@{_DOMAIN}(?![\w@])"
_WHOLE_EMAIL = re.compile(f"{_LOCAL_PART}@{_DOMAIN}")
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

# --- what a key says of the value under it ----------------------------------------------------------------------------

_SECRET_KEY = re.compile(f"{_SECRET_NAME}$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(?!\[\w+\]$)\S{6,}")
_PHONE_KEY = re.compile(
    r"(?:^|[_-])(?:tel|cell)$|(?:phone|mobile|telephone|msisdn|whatsapp|fax)(?:[_ -]?(?:number|no|nr))?$", re.IGNORECASE
)
_PHONE_VALUE = re.compile(r"\+?(?:[ ()./-]*[0-9]){8,15}")

# What card numbers begin with, and their lengths: a long number alone is more often an id, and Luhn lets a tenth pass.
_ISSUED = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|(?:5[1-5]|2[2-7]|35|62)[0-9]{14}|6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"
)
_JSON_TOKEN = re.compile(r'(?P<value>"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?P<colon>\s*:)?')
