"""What the contract says of events after a crash, given what was told and done with before it."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

from crash.oracle import broken, read
from crash.steps import Cancel, Crash, DoneWith, Event, History, Send, Session, Told, Upload
from txstore.protocol.event import Event as Ended

#: A transfer's end: how, and whose.
End = tuple[str, str]


@dataclass
class Feed:
    """What is known of the events of one store.

    :ivar told: number -> which end somebody was told under it
    :ivar done: by consumer: the last event that it is surely done with
    :ivar perhaps: likewise, that it was about to be done with
    :ivar ended: ends that were acknowledged, so that each must have its event
    :ivar begun: ends that were asked for, so that each may have one
    """

    told: dict[int, End] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    perhaps: Counter[str] = field(default_factory=Counter)
    ended: Counter[End] = field(default_factory=Counter)
    begun: Counter[End] = field(default_factory=Counter)
    #: Unfinished, as far as was acknowledged.
    live: set[str] = field(default_factory=set)
    #: Whether a consumer surely is.
    registered: bool = False

    def add(self, one: Event | Told | DoneWith) -> None:
        if isinstance(one, Told):
            self.told[one.sequence] = one.end
        elif isinstance(one, DoneWith):
            self.perhaps[one.consumer] = max(self.perhaps[one.consumer], one.sequence)
            if one.acked:
                self.registered = True
                self.done[one.consumer] = max(self.done[one.consumer], one.sequence)
        elif isinstance(one.step, Send) and one.step.number == one.step.upload.last:
            self._end(("stored", one.step.upload.file_id), one)
        elif isinstance(one.step, Send):
            if one.acked:
                self.live.add(one.step.upload.file_id)
        elif isinstance(one.step, Cancel):
            self._end(("cancelled", one.step.upload.file_id), one)

    def _end(self, end: End, one: Event) -> None:
        if not one.acked:
            self.begun[end] += 1
            return
        if end[0] == "stored":
            self.ended[end] = 1  # a repeat has no event of its own
        elif end[1] in self.live:
            self.ended[end] += 1
        self.live.discard(end[1])

    def lose(self) -> None:
        """The power was lost: the event of a file in one segment may be, if nobody follows."""
        self.live.clear()
        if not self.registered:
            self.ended.clear()


def feed_of(history: History) -> Feed:
    """What must be there now."""
    feed = Feed()
    for one in history:
        if not isinstance(one, Crash):
            feed.add(one)
        elif one.power:
            feed.lose()
    return feed


def check_feed(session: Session, history: History, uploads: list[Upload]) -> None:
    """Hold the events of a store that was just opened to what was told of them before.

    :raises PromiseBrokenError: one is missing, comes twice, or is another one's
    """
    feed, events = feed_of(history), _events(session)
    for number, end in feed.told.items():
        if number > len(events) or _end(events[number - 1]) != end:
            raise broken(4, f"event {number}, told as {end}, is another one or gone")
    found = Counter(map(_end, events))
    for end, count in feed.ended.items():
        if found[end] < count:
            raise broken(1, f"there is no event of {end}, which was acknowledged")
    for end, count in found.items():
        if count > min(feed.begun[end], 1 if end[0] == "stored" else count):
            raise broken(4, f"there are {count} events of {end}")
    for file_id in feed.live:
        if session.manager().status(file_id) is None and not found["cancelled", file_id]:
            raise broken(4, f"{file_id} was dropped, and there is no event of it")
    _check_files(session, events, uploads)
    _check_cursors(session, feed, len(events))


def check_feed_at_end(session: Session, uploads: list[Upload]) -> None:
    """Once all files are stored: each has one event, and every consumer sees the rest in order.

    :raises PromiseBrokenError: it is not so
    """
    events = _events(session)
    found = Counter(map(_end, events))
    for one in uploads:
        if found["stored", one.file_id] != 1:
            raise broken(4, f"{one.file_id}: {found['stored', one.file_id]} events of its file")
    for consumer in session.manager().consumers():
        with closing(session.manager().events(consumer.name)) as feed:
            seen = [event.sequence for event in feed]
        if seen != list(range(consumer.cursor + 1, len(events) + 1)):
            raise broken(1, f"{consumer.name} at {consumer.cursor} sees {seen} of {len(events)}")


def _end(event: Ended) -> End:
    return event.kind, event.file_id


def _events(session: Session) -> list[Ended]:
    events = list(session.manager().events())
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        raise broken(4, f"events have the numbers {[event.sequence for event in events]}")
    return events


def _check_files(session: Session, events: list[Ended], uploads: list[Upload]) -> None:
    """What an event tells of is there, or what was stored under its name since."""
    for one in uploads:
        told = [event for event in events if _end(event) == ("stored", one.file_id)]
        whole = {each.content for each in uploads if each.name == one.name}
        if told and read(session, one) not in whole:
            raise broken(1, f"{one.name} was told as stored, and is not there whole")
        for event in told:
            if event.sha256 != hashlib.sha256(one.content).hexdigest():
                raise broken(4, f"the event of {one.file_id} is of other bytes")


def _check_cursors(session: Session, feed: Feed, events: int) -> None:
    cursors = {one.name: one.cursor for one in session.manager().consumers()}
    for name, least in feed.done.items():
        most = feed.perhaps[name]
        if not least <= cursors.get(name, 0) <= most <= events:
            raise broken(
                1, f"{name} is at event {cursors.get(name, 0)} of {events}, not {least} to {most}"
            )
