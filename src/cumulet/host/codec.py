"""Messages and answers as JSON, for every bus between processes. A request carries a number, its answer repeats it."""

from __future__ import annotations

import base64
import functools
import logging
from typing import Any, TypeVar, Union, cast

import msgspec

from cumulet.host import messages as m
from cumulet.host.link import Answers
from cumulet.host.record import NOT_UNDERSTOOD
from cumulet.host.verbs import verbs

log = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")


class Request(msgspec.Struct, frozen=True):
    number: int
    message: m.Message[object]


class Answer(msgspec.Struct, frozen=True):
    """`error` is a class of `messages`, by name; `value` the verb's answer as builtins (bytes as base64).

    Of StaleGeneration, `value` is the generation that the host has accepted.
    """

    number: int
    value: Any = None
    error: str | None = None
    text: str = ""


_ERRORS = {cls.__name__: cls for cls in (m.VerbFailed, m.HostError)}

encode = msgspec.json.encode
_answers = msgspec.json.Decoder(Answer)


class NotUnderstood(Exception):
    """What came is no message of this version, or no message at all. Its sender may be hostile."""


def decode_answer(frame: bytes) -> Answer:
    """Raises NotUnderstood."""
    try:
        return _answers.decode(frame)
    except NOT_UNDERSTOOD as error:
        raise NotUnderstood(str(error)) from None


def encode_answer(reply: Answer, *, most: int) -> bytes:
    """A message of at most `most` bytes. If the answer is longer, the message is an error that says so."""
    payload = encode(reply)
    if len(payload) <= most:
        return payload
    text = f"ANSWER_TOO_LONG: {len(payload)} bytes, and the bus takes {most} in one message"
    return encode(Answer(reply.number, error="VerbFailed", text=text))


class _Numbered(msgspec.Struct, frozen=True):
    """A request whose message is not decoded yet."""

    number: int
    message: msgspec.Raw


_numbered = msgspec.json.Decoder(_Numbered)


@functools.cache
def _messages(known: tuple[type[m.Message[object]], ...]) -> msgspec.json.Decoder[m.Message[object]]:
    return msgspec.json.Decoder(Union[known])  # noqa: UP007 - of a tuple


def decode_request(frame: bytes) -> Request:
    """NotUnderstood if it is no request with a known verb."""
    try:
        numbered = _numbered.decode(frame)
        return Request(numbered.number, _messages(verbs()).decode(numbered.message))
    except NOT_UNDERSTOOD as error:
        raise NotUnderstood(str(error)) from None


async def answer(agent: Answers, request: Request) -> Answer:
    """What `agent` says to a request. An error that is no `HostError` is a defect: it is logged, and its text sent."""
    try:
        value = await agent.handle(request.message)
    except m.HostError as error:
        accepted = error.accepted if isinstance(error, m.StaleGeneration) else None
        return Answer(request.number, accepted, error=type(error).__name__, text=str(error))
    except Exception as error:
        log.exception("%s failed", type(request.message).__name__)
        return Answer(request.number, error="VerbFailed", text=f"{type(error).__name__}: {error}")
    return Answer(request.number, base64.b64encode(value).decode() if isinstance(value, bytes) else value)


def value_of(answer: Answer, message: m.Message[AnswerT]) -> AnswerT:
    """The value of an answer in the type that the message's verb declares; raises the `HostError` it carries.

    `HostError` also for a value of another type, as from an agent of another version or a hostile one.
    """
    if answer.error == m.StaleGeneration.__name__:
        raise m.StaleGeneration(answer.text, answer.value if type(answer.value) is int else None)
    if answer.error is not None:
        raise _ERRORS.get(answer.error, m.HostError)(answer.text)
    expected = m.answer_type(type(message))
    try:
        value = msgspec.convert(answer.value, expected)
    except msgspec.ValidationError as error:
        raise m.HostError(f"the answer to {m.name_of(type(message))} was not understood: {error}") from None
    return cast("AnswerT", value)
