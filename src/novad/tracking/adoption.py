"""An event log that was written without a key, put under one by a person who answers for what came before."""

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking.events import KEY_ADOPTED, Event, append, examine
from novad.tracking.proposal import signature
from novad.tracking.signing import SIGNING_KEY, fingerprint, signing_key, unsigned_log

__all__ = ["adopt_key"]


def adopt_key(workspace: Workspace, approver: str, reason: str, line: str | None = None) -> list[Event]:
    """Sign for every unsigned log, of one line or of all, by an event that covers what came before.

    Whoever can write to the database could have removed all signatures and written the log anew; so no log is
    taken for one that never had any until a person says that it is.

    Args:
        approver: the person who answers for it.
        reason: why, in their words.
        line: product line; None for all.
    Returns:
        The new events, of kind `key-adopted`; none where every line with a history is under the key already.
    Raises:
        ConfigError: no approver, no reason, or no key that signs.
        IntegrityError: something else is wrong with a log, or it had a key before; nothing is added.
        RefusedError: somebody else decided meanwhile; lines before that one are under the key.
        ServiceError: the database cannot be reached or stays locked.
    """
    approver, reason = signature(approver, reason)
    key = signing_key()
    if key is None:
        raise ConfigError(f"{SIGNING_KEY}: must name the key that signs from now on")
    chain, problems = examine(workspace, line)
    newest = {event.line: event for event in chain}
    mendable = {unsigned_log(name): name for name in newest}
    unsigned = [mendable[problem] for problem in problems if problem in mendable]
    wrong = [problem for problem in problems if problem not in mendable]
    wrong += [
        f"{event.line}: event {event.sequence} is the adoption of a key, and its signature was removed"
        for event in chain
        if event.line in unsigned and event.kind == KEY_ADOPTED
    ]
    if wrong:
        changed = f"the event log was changed behind novad's back: {'; '.join(wrong)}"
        raise IntegrityError(f"{changed}; no key is adopted")
    return [
        append(
            workspace,
            name,
            KEY_ADOPTED,
            actor=approver,
            reason=reason,
            detail={"key": fingerprint(key.public_key())},
            expected=newest[name].sequence,
        )
        for name in unsigned
    ]
