"""The strongest quakes by region: a worker of the example `quakes` in Python.

A node starts this program, hands it every quake, and asks for the report in the end. See `sdk/python/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional

from edri_sdk import Worker

# The feed writes them both ways.
WRITTEN_OUT = {"CA": "California", "MX": "Mexico", "NV": "Nevada"}


@dataclass
class QuakeRecorded:
    """A quake. Fields of the event that no handler here reads need not be named."""

    network: str
    magnitude: Optional[float]
    place: str


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


@worker.notification("quake.recorded", key="network")
async def recorded(quake: QuakeRecorded) -> None:
    name = region_of(quake.place)
    region = regions.get(name)
    if region is None:
        region = regions[name] = Region(name, 0, None, quake.place)
    region.count += 1
    if quake.magnitude is not None and (region.strongest is None or quake.magnitude > region.strongest):
        region.strongest, region.place = quake.magnitude, quake.place


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
