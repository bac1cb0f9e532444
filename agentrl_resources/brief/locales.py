"""A language: its words (one YAML catalogue each) and how it writes numbers, dates, money and durations (Babel)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agentrl_resources.brief.figures import Figure
from agentrl_resources.errors import AgentRLError

if TYPE_CHECKING:
    from babel import Locale as BabelLocale

LOCALES = ("en-US", "en-GB", "fr-FR")

_DIGEST_CHARACTERS = 12
_NARROW = "\u202f"


@dataclass(frozen=True)
class Language:
    """`layout` says in which order this language's readers find lead sentences, tiles, the blocks of page one (`front`,
    row by row) and those of the annex.
    """

    name: str
    paper: str
    layout: dict[str, list[str]]
    text: dict[str, str]

    def word(self, key: str) -> str:
        """A text of the catalogue. A name that comes from the data and is not in it (`part.x`) stands for itself."""
        family, _, name = key.partition(".")
        if key not in self.text and family in ("part", "gate", "metric", "owner", "suite", "kind"):
            return name
        return self.text[key]

    def write(self, figure: Figure, bare: bool = False) -> str:
        """A figure as this language writes it; `bare` leaves a percent sign or the like to the figure that follows."""
        value = figure.value
        match figure.unit:
            case "digest":
                return str(value)[:_DIGEST_CHARACTERS]
            case "name":
                return str(value)
            case "kind" | "gate" | "metric":
                return self.word(f"{figure.unit}.{value}")
            case "answer" | "level" | "basis":
                return self.text[f"{figure.unit}.{value}"]
            case "flag":
                return self.text["state." + ("null" if value is None else str(value).lower())]
            case "week":
                year, _, week = value.partition("-W")
                return self.text["unit.week"].format(week=int(week), year=year)
            case "date":
                from babel.dates import format_date

                return format_date(datetime.fromisoformat(value), "long", locale=self._babel)
            case _:
                return self._number(figure, bare)

    def short_week(self, week: str) -> str:
        """`W47`, for an axis."""
        return self.text["chart.week"].format(week=int(week.partition("-W")[2]))

    def seconds(self, seconds: float) -> str:
        """A duration: milliseconds, seconds or minutes, as its length asks for."""
        from babel.units import format_unit

        unit, amount, decimals = "second", seconds, 1 if seconds >= 10 else 2
        if seconds >= 100:
            unit, amount, decimals = "minute", seconds / 60, 1
        elif seconds < 1:
            unit, amount, decimals = "millisecond", 1000 * seconds, 0
        decimals *= amount != round(amount)
        pattern = "#,##0" + ("." + "0" * decimals if decimals else "")
        return format_unit(amount, unit, length="short", format=pattern, locale=self._babel)

    def whole_percent(self, share: float) -> str:
        """A share without decimals, for an axis."""
        from babel.numbers import format_decimal

        return self._percent(format_decimal(round(100 * share), "0", locale=self._babel))

    def _number(self, figure: Figure, bare: bool) -> str:
        from babel.numbers import format_currency, format_decimal

        value, unit = figure.value, figure.unit
        match unit:
            case "count":
                return format_decimal(value, "#,##0", locale=self._babel)
            case "score":
                return format_decimal(value, "0.000", locale=self._babel)
            case "share" | "percent" | "points" | "width":
                amount = 100 * value if unit == "share" else value
                decimals = "#,##0" if figure.rule and amount == round(amount) else "#,##0.0"
                # Rounded first: there is no negative zero.
                number = format_decimal(round(amount, 1) + 0.0, decimals, locale=self._babel)
                number = _signed(number, unit in ("percent", "points") and amount > 0)
                if bare:
                    return number
                return self._percent(number) if unit in ("share", "percent") else self._points(number)
            case "eur":
                # Cents count where a single task is priced, and only there.
                pattern = self._babel.currency_formats["standard"].pattern.replace(".00", ".00" * (abs(value) < 100))
                money = format_currency(value, "EUR", pattern, locale=self._babel, currency_digits=False)
                return _signed(money, False)
            case "seconds":
                return self.seconds(value)
            case "minutes":
                return self.seconds(60 * value)
            case "ms":
                return self.seconds(value / 1000)
            case _:
                raise AgentRLError(f"The brief cannot write a number in '{unit}'.")

    def _percent(self, number: str) -> str:
        positive, _ = self._babel.percent_formats[None].suffix
        return number + positive.replace("\u00a0", _NARROW)

    def _points(self, number: str) -> str:
        return self.text["unit.points"].format(number=number)

    @property
    def _babel(self) -> BabelLocale:
        from babel import Locale

        return Locale.parse(self.name, sep="-")


@functools.cache
def language(name: str) -> Language:
    """The language of a locale such as `fr-FR`."""
    if name not in LOCALES:
        raise AgentRLError(f"There is no brief in '{name}'. Languages: {', '.join(LOCALES)}.")
    catalogue: dict[str, Any] = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text())
    return Language(name, **catalogue)


def _signed(text: str, plus: bool) -> str:
    """With a real minus sign, and a plus sign where a rise is meant."""
    return ("+" if plus else "") + text.replace("-", "\u2212")
