"""Messages and answers as JSON, for every bus between processes. A request carries a number, its answer repeats it."""

from __future__ import annotations

import base64
import logging
from typing import Any

import msgspec

from cumulet.host import messages as m
from cumulet.host.link import Answers

log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True):
    number: int
    message: m.Message


class Answer(msgspec.Struct, frozen=True):
    """`error` is a class of `messages`, by name; `value` the verb's answer as builtins (bytes as base64)."""

    number: int
    value: Any = None
    error: str | None = None
    text: str = ""


_ERRORS = {cls.__name__: cls for cls in (m.VerbFailed, m.StaleGeneration, m.HostError)}
_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)

encode = msgspec.json.encode
decode_request = _requests.decode
decode_answer = _answers.decode


async def answer(agent: Answers, request: Request) -> Answer:
    """What `agent` says to a request. An error that is no `HostError` is a defect: it is logged, and its text sent."""
    try:
        value = await agent.handle(request.message)
    except m.HostError as error:
        return Answer(request.number, error=type(error).__name__, text=str(error))
    except Exception as error:
        log.exception("%s failed", type(request.message).__name__)
        return Answer(request.number, error="VerbFailed", text=f"{type(error).__name__}: {error}")
    return Answer(request.number, base64.b64encode(value).decode() if isinstance(value, bytes) else value)


def value_of(answer: Answer, message: m.Message) -> Any:
    """The value of an answer in the type that the message's verb declares; raises the `HostError` it carries."""
    if answer.error is not None:
        raise _ERRORS.get(answer.error, m.HostError)(answer.text)
    expected = m.ANSWERS.get(type(message))
    if expected is None:
        return None
    if expected is bytes:
        return base64.b64decode(answer.value)
    return msgspec.convert(answer.value, expected)
