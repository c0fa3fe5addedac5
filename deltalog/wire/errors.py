"""The errors of the log's layer: one base, and three groups by what whoever catches them can do.

    DeltalogError
        BadInput          BadPlace, BadSelection, BadSelector, BadDurable, BadAccess: what was given has to be corrected
        LogUnavailable    BrokerUnavailable (BrokerRefuses), JetStreamRefused, LogError, AppendError (AppendTimeout,
                          MessageTooLarge, Conflict): not done now; trying again may help, also after somebody has acted
        HistoryEnded      HistoryChanged, Forgotten, StreamGone (a LogError, too): reading cannot go on; begin again
        UnreadableRecord, TakenOver, NotTaken: none of the groups

Example: a loop that writes to the log for ever is `except LogUnavailable: wait`, and one that also reads what it
builds on is `except (LogUnavailable, HistoryEnded): begin again`.
"""

from __future__ import annotations


class DeltalogError(Exception):
    """What the log's layer fails with."""


class BadInput(DeltalogError):
    """What was given cannot be used, now or later; one line that says why, and the remedy where there is one."""


class LogUnavailable(DeltalogError):
    """The log did not do what was asked of it: no answer, a refusal, a stream that is not (yet) as it has to be."""


class HistoryEnded(DeltalogError):
    """What was read so far cannot be continued: the log is another one, or may have forgotten what came since."""
