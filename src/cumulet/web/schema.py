"""Bodies and queries are annotated classes; the JSON schema of every microversion is derived from them.

    @dataclass(frozen=True, kw_only=True)
    class MigrateLive(Body):
        host: Annotated[str | None, HOST_NAME]
        block_migration: ...
        force: Annotated[LooseBool, Since("2.30"), Until("2.67")] = False

Metadata for `Annotated`:
    Since("2.30"), Until("2.67")  the attribute exists only in these microversions (others refuse it: 400)
    Required(since=, until=)      required in this range although the class has a default
    Key("OS-DCF:diskConfig")      the JSON name, where it is no identifier
    Json({...})                   further JSON schema keywords (pattern, maxLength, enum...), merged over the derived ones
    Versions(("2.1", T1), ("2.25", T2))   another type from a microversion on
    Convert(fn)                   value -> attribute, after validation (may raise ValueError -> 400)
A class without default for an attribute makes it required; `UNSET` as default tells "absent" from null.
`Body` subclasses refuse unknown keys (`class X(Body, extra="allow")` keeps them in `.extra`).
"""
