"""Numbers as text. What is undefined says so, with its reason; nothing is rounded to certainty."""

from __future__ import annotations

from lucency.records import Box, Estimate, Rate

MINUS = "\N{MINUS SIGN}"
UNDEFINED = "not defined"


def share(value: float, decimals: int = 2) -> str:
    """Write a value in [0, 1]; only an exact 0 or 1 is written as one.

    >>> share(0.842), share(1.0), share(0.9978), share(0.99996), share(0.0002)
    ('0.84', '1.00', '0.998', '>0.999', '<0.001')
    """
    if value in (0.0, 1.0):
        return f"{value:.{decimals}f}"
    for places in range(decimals, max(decimals, 3) + 1):
        text = f"{value:.{places}f}"
        if 0.0 < float(text) < 1.0:
            return text
    return f">{1 - 10**-places:.{places}f}" if value > 0.5 else f"<{10**-places:.{places}f}"


def p_number(value: float) -> str:
    """Write a p-value: three decimals, below 0.01 two significant digits.

    >>> p_number(0.0417), p_number(1 / 300), p_number(1.0)
    ('0.042', '0.0033', '1.000')
    """
    return f"{value:.3f}" if value >= 0.00995 else f"{value:.2g}"


def p_value(value: float, smallest: float) -> str:
    """Write a p-value beside the smallest that the reference set can give."""
    return f"p = {p_number(value)}; smallest possible {p_number(smallest)}"


def percent(value: float) -> str:
    """Write a fraction as a percentage of two significant digits or one decimal.

    >>> percent(0.01), percent(0.0911), percent(0.0013), percent(1.0)
    ('1\\xa0%', '9.1\\xa0%', '0.13\\xa0%', '100\\xa0%')
    """
    scaled = 100 * value
    digits = f"{scaled:.1f}" if scaled >= 1 else f"{scaled:.2g}"
    return f"{digits.removesuffix('.0')}\N{NO-BREAK SPACE}%"


def signed(value: float, decimals: int = 2) -> str:
    """Write a difference with its sign.

    >>> signed(0.953), signed(-0.1)
    ('+0.95', '−0.10')
    """
    text = f"{abs(value):.{decimals}f}"
    return f"{MINUS if value < 0 and float(text) else '+'}{text}"


def count(value: int) -> str:
    """Write a count with thousands separators."""
    return f"{value:,}"


def amount(value: float) -> str:
    """Write a mean count with one decimal."""
    return f"{value:,.1f}"


def score(value: float) -> str:
    """Write a detector's score: three significant digits.

    >>> score(12.3456), score(-0.01234), score(1.4), score(1234.5), score(1e7)
    ('12.3', '−0.0123', '1.40', '1,230', '1e+07')
    """
    size = abs(value)
    if 999.5 <= size < 1e6:
        text = f"{float(f'{size:.3g}'):,.0f}"
    else:
        text = f"{size:.3g}" if size >= 1e6 else f"{size:#.3g}".removesuffix(".")
    return f"{MINUS if value < 0 else ''}{text}"


def deviations(value: float) -> str:
    """Write a number of standard deviations.

    >>> deviations(5.23), deviations(-0.11)
    ('5.2\\xa0SD', '−0.1\\xa0SD')
    """
    text = f"{abs(value):.1f}"
    return f"{MINUS if value < 0 and float(text) else ''}{text}\N{NO-BREAK SPACE}SD"


def interval(low: float | None, high: float | None, decimals: int = 2) -> str | None:
    """Write a 95 % interval, or nothing where there is none."""
    return (
        None
        if low is None or high is None
        else f"[{share(low, decimals)}, {share(high, decimals)}]"
    )


def difference(value: Estimate) -> str:
    """Write a difference in [-1, 1] with its interval, every number signed.

    >>> difference(Estimate(value=-0.014, low=-0.031, high=0.002))
    '−0.014 [−0.031, +0.002]'
    """
    if value.value is None:
        return undefined(value.reason)
    if value.low is None or value.high is None:
        return signed(value.value, 3) + (f" ({value.reason})" if value.reason else "")
    return f"{signed(value.value, 3)} [{signed(value.low, 3)}, {signed(value.high, 3)}]"


def undefined(reason: str | None) -> str:
    """Say that a value is not defined, and why."""
    return f"{UNDEFINED}: {reason or 'no reason was recorded'}"


def estimate(value: Estimate) -> str:
    """Write an estimate in one line.

    >>> estimate(Estimate(value=0.8421, low=0.81, high=0.87, n=453))
    '0.842 [0.81, 0.87], n = 453'
    """
    if value.value is None:
        return undefined(value.reason)
    spread = interval(value.low, value.high)
    return f"{share(value.value, 3)}{f' {spread}' if spread else ''}, n = {count(value.n)}"


def rate(value: Rate) -> str:
    """Write a rate in one line, with both counts.

    >>> rate(Rate(successes=231, trials=238, value=231 / 238, low=0.94, high=0.99))
    '0.97 (231/238) [0.94, 0.99]'
    """
    if value.value is None:
        return undefined(value.reason)
    spread = interval(value.low, value.high)
    return f"{share(value.value)} {fraction(value)}{f' {spread}' if spread else ''}"


def fraction(value: Rate) -> str:
    """Write both counts of a rate."""
    return f"({count(value.successes)}/{count(value.trials)})"


def box(value: Box) -> str:
    """Write a rectangle: its size and its top left corner, in pixels."""
    size = f"{value.width} × {value.height} px".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{size} at x\N{NO-BREAK SPACE}{value.x}, y\N{NO-BREAK SPACE}{value.y}"
