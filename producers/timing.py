"""Timing: how long the producing side waits for what, as one value that is handed in."""

from __future__ import annotations

import msgspec


class ProducerTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of the producing side, all in seconds; the defaults are what an operator wants.

    Pauses are spread by a fifth to a half of themselves where many producers or types would act at once. Example:
    `ProducerTiming(probe_every=0.2)` asks a cluster five times a second whether it is ready, all else as ever.
    """

    # -- speaking to a member cluster ------------------------------------------------------------------------------
    connect: float = 30.0
    """Until an API server, or the proxy on the way, accepts a connection (client-go's dial)."""
    handshake: float = 10.0
    """From there until requests can be sent: what a proxy takes, and TLS."""
    read: float = 60.0
    """Between two reads of an answer that is no watch."""
    answer: float = 120.0
    """What an answer that is no watch may take as a whole; a kube-apiserver itself ends it after 60 s."""
    refusal: float = 10.0
    """What the text of a refusal may take, which is told beside its code."""
    reload_credentials_every: float = 5.0
    """Between two looks at whether files of credentials have changed."""
    discover_group: float = 10.0
    """What one group's older discovery lists may take: the API server behind them may hang."""
    watch: tuple[int, int] = (300, 600)
    """A watch is asked to end after a random time in this range, so that many do not return at once (client-go's)."""
    watch_grace: float = 15.0
    """What a server may be late in ending a watch before the connection counts as half-open."""
    initial_silence: float = 20.0
    """Without a byte while initial events are awaited, until the connection is given up; as long may their end take
    once a change has come, when all that came is taken in."""
    bookmark_silence: float = 150.0
    """The same for a watch whose server sends bookmarks: about one a minute."""

    # -- credentials -----------------------------------------------------------------------------------------------
    token_file: float = 50.0
    """After so long a token's file is read again (client-go's minute, less its leeway of 10 s)."""
    credential_files: float = 10.0
    """What reading one may take: a file server may not answer."""
    plugin: float = 60.0
    """What a credential plugin may take until it is killed."""
    plugin_backoff: tuple[float, float] = (1.0, 120.0)
    """First and longest pause between runs of a plugin that fails, or whose answers are refused."""
    identity_provider: float = 30.0
    """What each question to an OpenID Connect provider may take."""
    identity_provider_backoff: tuple[float, float] = (1.0, 120.0)
    """First and longest pause between attempts to get a new token of it."""
    kubeconfig_lock: float = 10.0
    """How long a lock on a kubeconfig that somebody else holds is waited for."""

    # -- member clusters -------------------------------------------------------------------------------------------
    kubeconfig_files: float = 60.0
    """What a look at a file that names clusters may take, or at those that a cluster's entries name."""
    look_at_files_every: float = 2.0
    """Between two looks at the configuration, and at files that name clusters."""
    host_backoff: tuple[float, float] = (1.0, 30.0)
    """First and longest pause between attempts to read objects that name clusters."""
    host_stable: float = 60.0
    """So long the host cluster was read before a failure begins the backoff anew."""

    # -- following a cluster ---------------------------------------------------------------------------------------
    begin: float = 10.0
    """Until the next cluster begins in the place of one whose first lists are not in the log by then."""
    discover_every: float = 60.0
    """Between two looks at a cluster's types."""
    discover_again: tuple[float, float] = (0.5, 30.0)
    """First and longest pause after a discovery that failed."""
    discover_doubtful: float = 2.0
    """Until the next look when a group or a type was in doubt; doubled up to `discover_every` while it is."""
    discover_together: float = 0.5
    """Changes of CustomResourceDefinitions that come within this time make one look."""
    probe_every: float = 5.0
    """Between two questions whether a cluster is ready."""
    probe: float = 5.0
    """What the answer may take."""
    status_every: float = 30.0
    """Between two `status` records: how long a silent producer goes unnoticed by those who read the log."""
    first_status: float = 3.0
    """Until the first of them, at most `status_every`: an operator who has just started a producer looks at it."""
    look_at_history_every: float = 5.0
    """Between two looks at whether the log is still the one that was written."""
    log_backoff: tuple[float, float] = (0.5, 10.0)
    """First and longest pause while the log cannot be written."""
    deposed: float = 2.0
    """After another producer took a cluster that this one has the lease of, until it is taken back."""
    list_backoff: tuple[float, float] = (0.5, 30.0)
    """First and longest pause between lists, and between watches, that fail."""
    stable: float = 10.0
    """A watch that lasted so long was no failure: the next one begins the backoff anew."""
    sample_every: float = 1.0
    """Between two objects of which it is measured when their cluster changed them."""
    forget_deletions_every: float = 60.0
    """Between two looks at which deletions need not be remembered any longer."""
    handed_over: float = 60.0
    """A state that was handed over outranks older ones, which lists and watches still have, for so long."""
    failure_backoff: tuple[float, float] = (1.0, 60.0)
    """First and longest pause after work that failed with what nothing expects."""
    lease: float = 6.0
    """How long a producer that does not renew its leases keeps its clusters."""

    # -- OpenAPI documents -----------------------------------------------------------------------------------------
    openapi_every: float = 300.0
    """Between two looks at the documents when nothing says that they changed."""
    openapi_after: tuple[float, ...] = (5.0, 30.0)
    """Further looks after discovery has found changes: a server's documents follow its types, version 2 last."""
    openapi_again: float = 5.0
    """Until the next look after a failure; doubled up to `openapi_every` while it lasts."""
    openapi_first_lists: float = 10.0
    """The first lists go before, for so long."""
    openapi_document: float = 30.0
    """What one document may take."""


DEFAULT = ProducerTiming()
"""The timing of an installation."""
