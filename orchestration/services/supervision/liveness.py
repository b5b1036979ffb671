"""Whether a service whose process runs still answers, by several questions in a row."""

import threading
from collections.abc import Callable

ASK_EVERY_S = 20.0
"""Seconds between two questions, and that each waits for its answer: one that is only busy has time."""
MOST_UNANSWERED = 3
"""What leaves so many questions in a row unanswered hangs."""


class Question(threading.Thread):
    """One question; a thread of its own asks it, which nobody waits for at the end."""

    def __init__(self, answers: Callable[[float], bool]) -> None:
        super().__init__(daemon=True)
        self._answers = answers
        self.answered = True
        """False once it was left unanswered. A question that fails by itself says nothing of the service."""

    def run(self) -> None:
        """Asks, and waits for the answer."""
        self.answered = self._answers(ASK_EVERY_S)


class Liveness:
    """Counts the questions in a row that the process of one service has left unanswered.

    Args:
        answers: Returns whether the service answers within so many seconds.
        starts_s: Seconds that its start may take. What has not answered yet starts, and does not hang.

    Attributes:
        unanswered: How many questions in a row were left unanswered.
    """

    def __init__(self, answers: Callable[[float], bool], starts_s: float) -> None:
        self._answers = answers
        self._starts_s = starts_s
        self._pid: int | None = None
        self._begun_s = self._asked_s = 0.0
        self._question: Question | None = None
        self._has_answered = False
        self.unanswered = 0

    def hangs(self, pid: int, now_s: float) -> bool:
        """Asks again when it is time; returns whether too many questions in a row were left unanswered.

        Args:
            pid: The process that runs; a new one has a fresh count.
            now_s: The time on a clock that nobody sets.
        """
        if pid != self._pid:
            self._pid, self._begun_s, self._asked_s = pid, now_s, now_s
            self._question, self._has_answered, self.unanswered = None, False, 0
        if self._question is not None and not self._question.is_alive():
            self._has_answered |= self._question.answered
            starts = not self._has_answered and now_s - self._begun_s < self._starts_s
            self.unanswered = 0 if self._question.answered or starts else self.unanswered + 1
            self._question = None
        if self._question is None and now_s - self._asked_s >= ASK_EVERY_S:
            self._question, self._asked_s = Question(self._answers), now_s
            self._question.start()
        if self.unanswered < MOST_UNANSWERED:
            return False
        self._pid, self.unanswered = None, 0  # said once; what survives that is asked again
        return True
