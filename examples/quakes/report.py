"""The strongest quakes by region: a worker of the example `quakes` in Python.

A node starts this program, hands it every quake, and asks for the report in the end. See `sdk/python/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from edri_sdk import Worker

# The feed writes them both ways.
WRITTEN_OUT = {"CA": "California", "MX": "Mexico", "NV": "Nevada"}


@dataclass
class QuakeRecorded:
    """A quake. Fields of the event that no handler here reads need not be named."""

    network: str
    magnitude: Optional[float]
    place: str
    time_ms: int


@dataclass
class ReportRegions:
    """What was there, by region?"""


@dataclass
class Region:
    region: str
    count: int
    strongest: Optional[float]
    place: str


worker = Worker()
regions: Dict[str, Region] = {}
# When the strongest quake of each region was. Of those that are as strong the earliest counts, in whatever order they come.
when: Dict[str, int] = {}


@worker.notification("quake.recorded", key="network")
async def recorded(quake: QuakeRecorded) -> None:
    name = region_of(quake.place)
    region = regions.get(name)
    if region is None:
        region = regions[name] = Region(name, 0, quake.magnitude, quake.place)
        when[name] = quake.time_ms
    region.count += 1
    if rank(quake.magnitude, quake.time_ms) > rank(region.strongest, when[name]):
        region.strongest, region.place, when[name] = quake.magnitude, quake.place, quake.time_ms


def rank(magnitude: Optional[float], time_ms: int) -> Tuple[float, int]:
    return (float("-inf") if magnitude is None else magnitude, -time_ms)


@worker.request("regions.report", timeout=10, idempotent=True)
async def report(_: ReportRegions) -> List[Region]:
    """The regions, that of the strongest quake first."""
    return sorted(regions.values(), key=lambda it: (it.strongest is None, -(it.strongest or 0), it.region))


def region_of(place: str) -> str:
    """`California` for `8km NW of The Geysers, CA`; a place without a comma is its own region."""
    name = place.rpartition(",")[2].strip()
    return WRITTEN_OUT.get(name, name)


if __name__ == "__main__":
    worker.run()
