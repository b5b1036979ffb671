"""Writes prompts by a model's chat template, in a process of little time and memory.

The template comes with the model. Jinja's sandbox keeps it from files and objects, but not from loops in
loops, nor from texts of gigabytes. This file is also that process: it imports nothing of ours.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

_TIMEOUT_S = 5
_MEMORY_BYTES = 512 << 20
_MOST_CHARACTERS = 1 << 20
"""What a template may write beside four times its messages."""


class ChatTemplateError(ValueError):
    """The template can not write these messages; the message says why."""


class ChatTemplate:
    """A chat template. Its process starts with the first prompt, and again after it had to be ended.

    Args:
        template: The template, for Jinja.
        special_tokens: The tokenizer's special tokens, such as `bos_token`, which the template may write.
    """

    def __init__(self, template: str, special_tokens: Mapping[str, object]) -> None:
        self._given = json.dumps({"template": template, "special_tokens": special_tokens}, default=str)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def write(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Returns the prompt of chat messages.

        Raises:
            ChatTemplateError: The template fails at them, or takes too much time or memory.
        """
        with self._lock:
            process = self._process or self._started()
            try:
                said = _asked(process, json.dumps({"messages": list(map(dict, messages))}))
            except (OSError, ValueError):
                said = None
            if said is None:
                self._process = None
                process.kill()
                late = process.wait() == -signal.SIGALRM
                took = f"it takes more than {_TIMEOUT_S} seconds" if late else "its process died"
                raise ChatTemplateError(took)
        if (fault := said.get("fault")) is not None:
            raise ChatTemplateError(fault)
        return str(said["text"])

    def _started(self) -> "subprocess.Popen[bytes]":
        # -P: the folder of this file, which has a package `torch`, is no place to import from.
        command = [sys.executable, "-P", __file__, str(_TIMEOUT_S), str(_MEMORY_BYTES)]
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each reserves memory
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | threads,
        )
        weakref.finalize(self, _end, process)
        if _asked(process, self._given) is None:
            raise ChatTemplateError(f"{sys.executable} can not start the process that writes prompts")
        self._process = process
        return process


def _asked(process: "subprocess.Popen[bytes]", line: str) -> dict[str, Any] | None:
    """Returns what the process says to a line; None if it ended."""
    into, out = process.stdin, process.stdout
    if into is None or out is None:
        return None
    into.write(line.encode() + b"\n")
    into.flush()
    said = out.readline()
    return json.loads(said) if said.endswith(b"\n") else None


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):  # what it did not read
            pipe.close()


def without_system_message(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns the messages with the instructions at the beginning of the first one of the user."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return [dict(each) for each in messages]
    system, first, *rest = messages
    content = f"{system['content']}\n\n{first['content']}"
    return [{"role": first["role"], "content": content}, *map(dict, rest)]


def _serve(timeout_s: int, memory_bytes: int) -> None:
    """Answers lines of messages with lines of prompts, until there are no more."""
    from transformers.utils.chat_template_utils import render_jinja_template

    with contextlib.suppress(ValueError, OSError):  # macOS has no bound on address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    given = json.loads(sys.stdin.readline())
    print("{}", flush=True)
    for line in sys.stdin:
        messages = json.loads(line)["messages"]
        signal.alarm(timeout_s)  # ends this process, also within one long operation
        try:
            [text], _ = render_jinja_template(
                *([messages], None, None, given["template"]),
                add_generation_prompt=True,
                **given["special_tokens"],
            )
            if len(text) > 4 * len(line) + _MOST_CHARACTERS:
                raise ValueError(f"it writes {len(text)} characters for messages of {len(line)}")
            answer = json.dumps({"text": text})
        except MemoryError:
            text = answer = None
            answer = json.dumps({"fault": f"it takes more than {memory_bytes >> 20} MiB"})
        except Exception as error:  # whatever a template raises
            answer = json.dumps({"fault": str(error)[:1000] or type(error).__name__})
        signal.alarm(0)
        print(answer, flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
