"""Tokens while two versions run beside each other: an older process reads what it knows, and refuses the rest."""

from __future__ import annotations

import msgspec
import pytest

from cumulet.identity.delegations import Delegation
from cumulet.identity.tokens import ScopeKind, Token, packed, unpacked


class DelegationBefore(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """As the version before has it: it drops what it does not know."""

    application_credential_id: str = ""
    trust_id: str = ""
    trustee_user_id: str = ""
    credential_id: str = ""
    other_user_ids: tuple[str, ...] = ()


class TokenBefore(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    user_id: str
    methods: tuple[str, ...]
    scope: ScopeKind
    scope_id: str
    issued_at_us: int
    expires_at_us: int
    audit_id: str
    ancestors: tuple[str, ...] = ()
    from_system: bool = False
    by: DelegationBefore = DelegationBefore()


def token(by: Delegation, **more: object) -> Token:
    made = Token(
        user_id="u",
        methods=("password",),
        scope="project",
        scope_id="p",
        issued_at_us=1,
        expires_at_us=2,
        audit_id="a",
        by=by,
    )
    return msgspec.structs.replace(made, **more)


BEFORE = [
    token(Delegation()),
    token(Delegation(), ancestors=("b", "c")),
    token(Delegation(), scope="unscoped", scope_id="", from_system=True),
    token(Delegation(application_credential_id="x")),
    token(Delegation(trust_id="t", trustee_user_id="v", other_user_ids=("u", "v"))),
    token(Delegation(credential_id="e"), from_system=True),
]


@pytest.mark.parametrize("made", BEFORE)
def test_the_version_before_reads_tokens_of_the_kinds_it_knows(made: Token) -> None:
    read = msgspec.msgpack.decode(packed(made), type=TokenBefore)
    fields = msgspec.to_builtins(made)
    assert msgspec.to_builtins(read) == [*fields[:-1], fields[-1][:-1]]
    assert unpacked(packed(made)) == made


@pytest.mark.parametrize("made", BEFORE)
def test_tokens_of_the_version_before_are_read(made: Token) -> None:
    written = TokenBefore(
        **{name: getattr(made, name) for name in TokenBefore.__struct_fields__ if name != "by"},
        by=DelegationBefore(**{name: getattr(made.by, name) for name in DelegationBefore.__struct_fields__}),
    )
    assert unpacked(msgspec.msgpack.encode(written)) == made


def test_the_version_before_cannot_read_a_token_by_oauth() -> None:
    """It would drop the one field that limits the token."""
    made = token(Delegation(access_token_id="o"))
    assert unpacked(packed(made)) == made
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(packed(made), type=TokenBefore)


@pytest.mark.parametrize("where", ["token", "delegation"])
def test_a_token_with_a_field_of_a_later_version_is_refused(where: str) -> None:
    fields = list(msgspec.to_builtins(token(Delegation(application_credential_id="x"))))
    if where == "token":
        fields.append("new")
    else:
        fields[-1] = [*fields[-1], "new"]
    assert unpacked(msgspec.msgpack.encode(fields)) is None


def test_a_later_version_s_fields_that_are_empty_are_not_sent() -> None:
    """So that this version will read the tokens of later ones that it understands."""
    assert msgspec.msgpack.decode(packed(token(Delegation()))) == ["u", ["password"], "project", "p", 1, 2, "a"]
    made = token(Delegation(application_credential_id="x"))
    assert msgspec.msgpack.decode(packed(made))[-1] == ["x"]


def test_a_field_that_a_later_version_adds_at_the_end_is_sent_where_it_is_not_empty() -> None:
    class Later(Token, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
        new: str = ""

    known = token(Delegation(application_credential_id="x"))
    made = Later(**msgspec.structs.asdict(known))
    assert packed(made) == packed(known)
    later = packed(msgspec.structs.replace(made, new="n"))
    assert msgspec.msgpack.decode(later)[-2:] == [["x"], "n"]
    assert unpacked(later) is None
