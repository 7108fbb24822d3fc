"""Says what a ticket is about: a worker of the example `helpdesk` in Python, a naive Bayes classifier in the standard library.

A node starts this program and hands it every ticket that was opened. See `sdk/python/README.md`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import List

from edri_sdk import Context, Worker

# What it has learnt from. In earnest: the tickets that somebody has sorted.
EXAMPLES = {
    "printer": ["the printer is jammed again", "paper stuck toner empty scanner", "cannot print my document on the second floor printer"],
    "network": ["no internet connection", "wifi is slow and drops", "vpn does not connect from home", "cable port network outage"],
    "account": ["forgot my password", "cannot log in account locked", "new user needs an account and access rights", "reset login token"],
    "software": ["the program crashes with an error", "please install an update licence", "excel does not start after the update", "screen freezes"],
}
# Below this it is anybody's guess.
CERTAIN = 0.45


def words(text: str) -> List[str]:
    return re.findall(r"[a-z]{3,}", text.lower())


COUNTS = {topic: Counter(word for line in lines for word in words(line)) for topic, lines in EXAMPLES.items()}
VOCABULARY = set().union(*COUNTS.values())


def topic_of(text: str) -> str:
    known = [word for word in words(text) if word in VOCABULARY]

    def score(counts: Counter) -> float:
        total = sum(counts.values()) + len(VOCABULARY)
        return sum(math.log((counts[word] + 1) / total) for word in known)

    scores = {topic: score(counts) for topic, counts in COUNTS.items()}
    best = max(scores, key=scores.__getitem__)
    likely = 1 / sum(math.exp(other - scores[best]) for other in scores.values())
    return best if known and likely >= CERTAIN else "other"


@dataclass
class TicketOpened:
    id: int
    subject: str
    text: str


worker = Worker()


@worker.notification("ticket.opened", key="id")
async def opened(ticket: TicketOpened, cx: Context) -> None:
    await cx.request("ticket.amend", {"id": ticket.id, "topic": topic_of(f"{ticket.subject} {ticket.text}")})


if __name__ == "__main__":
    worker.run()
