"""Cron schedules and the CronJobs that follow them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pervade.cluster.controllers.cronjob import superfluous
from pervade.cluster.controllers.schedule import following, latest, parse
from pervade.kube.resources import CRON_JOBS, EVENTS, JOBS

JSON = dict[str, Any]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "after", "wanted"),
    [
        ("* * * * *", "2026-01-01T00:00:30", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:45", "2026-01-01T01:00"),
        ("5/20 * * * *", "2026-01-01T00:05", "2026-01-01T00:25"),
        ("0 9-17/4 * * mon-fri", "2026-01-02T17:00", "2026-01-05T09:00"),
        ("0 0 13 * 5", "2026-01-01T00:00", "2026-01-02T00:00"),
        ("0 0 13 * *", "2026-01-01T00:00", "2026-01-13T00:00"),
        ("0 0 29 feb ?", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("@weekly", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("30 23 31 12 *", "2026-12-31T23:30", "2027-12-31T23:30"),
    ],
)
def test_the_next_time(text: str, after: str, wanted: str) -> None:
    assert following(parse(text), at(after)) == at(wanted)


def test_a_day_that_never_comes() -> None:
    assert following(parse("0 0 30 2 *"), at("2026-01-01T00:00")) is None


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *", "*/0 * * * *", "a * * * *", "@every 1m", "TZ=UTC * * * * *"]
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_times_follow_the_zone_through_changes_of_the_clock() -> None:
    zone = ZoneInfo("Europe/Berlin")
    daily = parse("30 2 * * *")
    # 02:30 does not exist on 29 March 2026 and exists twice on 25 October.
    assert following(daily, at("2026-03-28T01:30"), zone) == at("2026-03-30T00:30")
    assert following(daily, at("2026-10-24T23:00"), zone) == at("2026-10-25T00:30")
    assert following(daily, at("2026-10-25T00:30"), zone) == at("2026-10-25T01:30")


@settings(deadline=None, max_examples=50)
@given(
    minute=st.sampled_from(["*", "*/7", "0", "3,59"]),
    hour=st.sampled_from(["*", "*/5", "0", "23"]),
    day=st.sampled_from(["*", "1", "31"]),
    until=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    back=st.integers(1, 40 * 24 * 60),
)
def test_the_last_time_is_the_one_before_the_next(
    minute: str, hour: str, day: str, until: datetime, back: int
) -> None:
    schedule, now = parse(f"{minute} {hour} {day} * *"), until.replace(tzinfo=UTC)
    since = now - timedelta(minutes=back)
    found = latest(schedule, since, now)
    if found is None:
        first = following(schedule, since)
        assert first is not None and first > now
    else:
        assert since < found <= now
        coming = following(schedule, found)
        assert coming is not None and coming > now


def test_history_keeps_the_youngest() -> None:
    def job(name: str, kind: str) -> JSON:
        row = {"type": kind, "status": "True"}
        return {
            "metadata": {"name": name, "creationTimestamp": name},
            "status": {"conditions": [row], "startTime": name},
        }

    jobs = [job(str(n), "Complete") for n in range(5)] + [job("8", "Failed"), job("9", "Failed")]
    assert [j["metadata"]["name"] for j in superfluous({"spec": {}}, jobs)] == ["0", "1", "8"]


def cron(name: str, plays: str, schedule: str = "* * * * *", **spec: Any) -> JSON:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}
    template = {"spec": {"template": {"metadata": {"labels": {"plays": plays}}, "spec": pod}}}
    meta = {"name": name, "namespace": "default"}
    return {"metadata": meta, "spec": {"schedule": schedule, "jobTemplate": template, **spec}}


async def missed(world: Any, body: JSON) -> JSON:
    """A CronJob that was last started an hour ago."""
    body["spec"]["suspend"] = True
    made = await world.client.create(CRON_JOBS, body)
    name = made["metadata"]["name"]
    before = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await world.client.patch(
        CRON_JOBS, name, {"status": {"lastScheduleTime": before}}, "default", subresource="status"
    )
    resumed: JSON = await world.client.patch(CRON_JOBS, name, {"spec": {"suspend": False}}, "default")
    return resumed


async def test_a_missed_time_is_made_up_once_and_its_job_is_counted(world: Any) -> None:
    made = await missed(world, cron("tick", "end"))
    found = await world.seen(
        CRON_JOBS, lambda held: held["tick"]["status"].get("lastSuccessfulTime") and held["tick"]
    )
    assert not found["status"].get("active")
    jobs = (await world.client.list(JOBS, "default"))[0]
    minutes = int(datetime.fromisoformat(found["status"]["lastScheduleTime"]).timestamp()) // 60
    assert f"tick-{minutes}" in {j["metadata"]["name"] for j in jobs} and len(jobs) <= 2
    assert {j["metadata"]["ownerReferences"][0]["uid"] for j in jobs} == {made["metadata"]["uid"]}
    await world.client.delete(CRON_JOBS, "tick", "default", propagation="Foreground")
    await world.seen(JOBS, lambda held: not held)


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
async def test_a_job_that_still_runs(world: Any, policy: str) -> None:
    """With Forbid the next one is not started, with Replace it takes the place."""
    made = await world.client.create(CRON_JOBS, cron("tick", "", suspend=True, concurrencyPolicy=policy))
    ref = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "tick",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }
    running = {"metadata": {"name": "tick-1", "namespace": "default", "ownerReferences": [ref]}}
    await world.client.create(JOBS, running | {"spec": made["spec"]["jobTemplate"]["spec"]})
    await world.seen(
        CRON_JOBS, lambda held: [a["name"] for a in held["tick"]["status"].get("active") or ()] == ["tick-1"]
    )
    before = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await world.client.patch(
        CRON_JOBS, "tick", {"status": {"lastScheduleTime": before}}, "default", subresource="status"
    )
    await world.client.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}}, "default")
    if policy == "Forbid":
        await world.seen(EVENTS, lambda held: any(e["reason"] == "JobAlreadyActive" for e in held.values()))
        assert [j["metadata"]["name"] for j in (await world.client.list(JOBS, "default"))[0]] == ["tick-1"]
    else:
        await world.seen(JOBS, lambda held: held and "tick-1" not in held)


async def test_a_schedule_that_means_nothing_is_said(world: Any) -> None:
    await world.client.create(CRON_JOBS, cron("wrong", "", "61 * * * *"))
    await world.client.create(CRON_JOBS, cron("nowhere", "", timeZone="Nowhere/Town"))
    held = await world.seen(
        EVENTS,
        lambda held: (
            {"UnparseableSchedule", "UnknownTimeZone"} <= {e["reason"] for e in held.values()} and held
        ),
    )
    text = next(e["message"] for e in held.values() if e["reason"] == "UnparseableSchedule")
    assert "minute" in text and "between 0 and 59" in text
