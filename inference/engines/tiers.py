"""Several engines in an order: the next is asked where one does not answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import get_args

from inference.engines.digest import engine_digest
from inference.engines.protocol import Engine, EnginePrompt, EngineReply, answer_one
from inference.prompting.types import Draft, Outcome, Passage

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Route = Callable[[Sequence[str]], Sequence[int]]


class TieredEngine:
    """An engine that asks others in order, the cheapest first, until one answers.

    Where none does, the best outcome stands, in the order of `Outcome`, and of equal ones the last: an answer
    is refused if one engine refused it and none had more to say, and fails only if all failed. The tokens
    and the cost are those of all engines that were asked.

    Args:
        tiers: The engines, in the order in which they are asked.
        route: Takes questions and returns the tier at which each begins, from 0; all begin at the first
            unless given.
        route_digest: A digest of the examples that decide that.
        encoder_digest: The digest of the embedder that decides that.
    """

    def __init__(
        self,
        tiers: Sequence[Engine],
        route: Route | None = None,
        route_digest: str = "",
        encoder_digest: str = "",
    ) -> None:
        self.tiers = tiers
        self.route_digest = route_digest
        self._route = route
        self._encoder_digest = encoder_digest

    @property
    def name(self) -> str:
        """The names of the engines, in order."""
        return " > ".join(tier.name for tier in self.tiers)

    @property
    def digest(self) -> str:
        """A digest of the engines' digests, in order, and of the routing."""
        routing = (self.route_digest, self._encoder_digest)
        return engine_digest("tiers", *routing, *(tier.digest for tier in self.tiers))

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Returns the draft of the first engine that answers, else the best of the others.

        Raises:
            EngineError: All engines fail.
        """
        return answer_one(self, question, passages)

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields a reply to each prompt as soon as an engine has answered it, in any order."""
        open_replies: dict[int, EngineReply | None] = dict.fromkeys(range(len(prompts)))
        begins = self._route([prompt.question for prompt in prompts]) if self._route else [0] * len(prompts)
        for place, tier in enumerate(self.tiers):
            asked = [index for index in open_replies if begins[index] <= place]
            last = place == len(self.tiers) - 1
            for reply in tier.answer_many([prompts[index] for index in asked]):
                index = asked[reply.index]
                best = _better(open_replies[index], replace(reply, index=index))
                if last or reply.draft.outcome == "answered":
                    del open_replies[index]
                    yield best
                else:
                    open_replies[index] = best
            if not open_replies:
                return


def _better(before: EngineReply | None, reply: EngineReply) -> EngineReply:
    """Returns the better of two replies, with what both said and took."""
    if before is None:
        return replace(reply, because=reply.said)
    stands = min(reply, before, key=lambda each: _OUTCOMES.index(each.draft.outcome))
    took = [each.draft.usage for each in (before, reply) if each.draft.usage]
    usage = sum(took[1:], took[0]) if took else None
    return replace(
        stands, draft=replace(stands.draft, usage=usage), because=f"{before.because}; {reply.said}"
    )
