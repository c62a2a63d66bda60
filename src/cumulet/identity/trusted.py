"""A trust at the moment it is used to get a token."""

from __future__ import annotations

from sqlalchemy import update

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden, NotFound
from cumulet.identity.delegations import Trust, trust_by_id, trusts


def live_trust(tx: Tx, trust_id: str, now_us: int) -> Trust:
    """A trust that can be used; 404 otherwise."""
    trust = trust_by_id(tx, trust_id)
    expired = trust is not None and trust.expires_at_us is not None and trust.expires_at_us <= now_us
    if trust is None or expired or trust.remaining_uses == 0:
        raise NotFound(f"Could not find trust: {trust_id[:64]}.")
    return trust


def use_trust(tx: Tx, trust_id: str, user_id: str, now_us: int) -> Trust:
    """A trust to a user, used once more."""
    trust = live_trust(tx, trust_id, now_us)
    if trust.trustee_user_id != user_id:
        raise Forbidden("You are not authorized to perform the requested action: User is not a trustee.")
    if trust.remaining_uses is not None:
        t = trusts.c
        uses = update(trusts).where(t.id == trust.id, t.remaining_uses > 0)
        if not tx.changed(uses.values(remaining_uses=t.remaining_uses - 1)):
            raise Forbidden(f"No remaining uses for trust: {trust.id}.")
    return trust
