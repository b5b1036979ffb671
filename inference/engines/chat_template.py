"""Writes a prompt by a model's chat template, within a time, and with a place for instructions or without."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_TEMPLATE_TIMEOUT_S = 5


def write_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Returns the prompt of messages by the chat template, which comes with the model.

    Jinja's sandbox keeps a template from files and objects, and from a long `range`, but not from loops in
    loops. So each of its lines looks at the time: in this thread alone, which need not be the main one.

    Raises:
        TimeoutError: It takes too long.
    """
    deadline = time.monotonic() + _TEMPLATE_TIMEOUT_S

    def watch(_frame: object, _event: str, _argument: object) -> Any:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it takes more than {_TEMPLATE_TIMEOUT_S} seconds")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    finally:
        sys.settrace(before)
    return text


def without_system_message(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns the messages with the instructions at the beginning of the first one of the user."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return [dict(each) for each in messages]
    system, first, *rest = messages
    content = f"{system['content']}\n\n{first['content']}"
    return [{"role": first["role"], "content": content}, *map(dict, rest)]
