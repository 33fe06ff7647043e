"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float | None) -> str:
    r"""Write a share as people read it, "–" where there is none.

    Example:
        >>> percent(0.9744)
        '97.4\xa0%'
    """
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def decimal(value: float | None) -> str:
    """Write a number as precisely as it is worth reading, "–" where there is none.

    Example:
        >>> decimal(0.97444), decimal(1640.2), decimal(5712)
        ('0.9744', '1,640', '5,712')
    """
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.4f}"


def interval(ends: Sequence[float] | None) -> str:
    r"""Write the ends of an interval of a share, "–" where there is none.

    Example:
        >>> interval((0.9744, 1.0))
        '97.4–100.0\xa0%'
    """
    return "–" if ends is None else f"{100 * ends[0]:.1f}–{percent(ends[1])}"


def duration(seconds: float) -> str:
    """Write a time in the unit that fits.

    Example:
        >>> duration(42), duration(754)
        ('42 s', '13 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
