"""Cron schedules: five fields or a name, in a time zone. Pure.

Source: crontab(5); Kubernetes, "CronJob", "Schedule syntax". A wall time that a change of the clock skips
does not come that day; one that comes twice is met twice. Cost: O(days to the match + matches of that day).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FAR = timedelta(days=5 * 366)


class Schedule(msgspec.Struct, frozen=True):
    """When something is due, as sets of numbers."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """Days of the month and of the week are both restricted: one of them is enough."""

    def on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either else of_month and of_week


def _number(text: str, names: list[str], first: int) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + first
    if not text.isdigit():
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _field(text: str, label: str, low: int, high: int, names: list[str]) -> tuple[frozenset[int], bool]:
    """The numbers of a field, and whether it restricts nothing."""
    out: set[int] = set()
    star = False
    for part in text.split(","):
        span, slash, every = part.partition("/")
        if slash and (not every.isdigit() or int(every) == 0):
            raise ValueError(f"{label}: step {every!r} must be a number above 0")
        if span in ("*", "?"):
            first, last = low, high
            star |= not slash or int(every) == 1
        else:
            start, dash, end = span.partition("-")
            first = _number(start, names, low)
            last = _number(end, names, low) if dash else high if slash else first
        if not low <= first <= last <= high:
            raise ValueError(f"{label}: {part!r} must lie between {low} and {high}")
        out |= set(range(first, last + 1, int(every) if slash else 1))
    return frozenset(out), star


def parse(text: str) -> Schedule:
    """A schedule out of its text; ValueError says which field is wrong."""
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ValueError(f"{text!r} must have five fields, or be one of {', '.join(sorted(_NAMED))}")
    minutes, _ = _field(fields[0], "minute", 0, 59, [])
    hours, _ = _field(fields[1], "hour", 0, 23, [])
    days, any_day = _field(fields[2], "day of month", 1, 31, [])
    months, _ = _field(fields[3], "month", 1, 12, _MONTHS)
    weekdays, any_weekday = _field(fields[4], "day of week", 0, 6, _DAYS)
    return Schedule(minutes, hours, days, months, weekdays, not any_day and not any_weekday)


def _times(schedule: Schedule, day: date, zone: tzinfo) -> list[datetime]:
    """All times of a day of the zone's calendar, in UTC and in order."""
    out: set[datetime] = set()
    for hour in schedule.hours:
        for minute in schedule.minutes:
            for fold in (0,) if zone is UTC else (0, 1):
                local = datetime(day.year, day.month, day.day, hour, minute, fold=fold, tzinfo=zone)
                at = local.astimezone(UTC)
                back = at.astimezone(zone)
                if (back.hour, back.minute) == (hour, minute):
                    out.add(at)
    return sorted(out)


def following(schedule: Schedule, after: datetime, zone: tzinfo = UTC) -> datetime | None:
    """The first time after `after`, in UTC; None when there is none in five years (30 February)."""
    day = after.astimezone(zone).date()
    last = day + _FAR
    while day <= last:
        if schedule.on(day):
            for at in _times(schedule, day, zone):
                if at > after:
                    return at
        day += timedelta(days=1)
    return None


def latest(schedule: Schedule, after: datetime, until: datetime, zone: tzinfo = UTC) -> datetime | None:
    """The last time after `after` and not after `until`, in UTC; None when there is none."""
    day, first = until.astimezone(zone).date(), after.astimezone(zone).date()
    while day >= first:
        if schedule.on(day):
            for at in reversed(_times(schedule, day, zone)):
                if at <= until:
                    return at if at > after else None
        day -= timedelta(days=1)
    return None
