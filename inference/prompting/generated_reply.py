"""What a model's reply to a prompt comes to: an answer, a refusal, a text that was cut off, or nothing."""

from collections.abc import Sequence
from dataclasses import replace

from inference.prompting.cited_reply import parse_cited_reply
from inference.prompting.prompt_assembly import PromptForm
from inference.prompting.thoughts import without_thoughts
from inference.prompting.types import Draft, Passage, TokenUsage

_CUT_OFF = (
    "The answer was cut off at its length limit, before it held a sentence that the passages found support: "
    "set HEADWATER_GENERATOR__MAX_NEW_TOKENS higher."
)


def generated_draft(
    reply: str,
    finish_reason: str | None,
    form: PromptForm,
    passages: Sequence[Passage],
    usage: TokenUsage | None,
) -> Draft:
    """Returns what a model's reply to a prompt comes to, with what it took and did not read.

    Only a model that ended its reply can refuse. Of a reply that was cut off, the sentences stay that were
    complete, with what supports them.

    Args:
        reply: The text that the model generated. What it thought is no part of the answer.
        finish_reason: Why it ended, as OpenAI's API says: `length` where it was cut off, `content_filter`
            where the service withheld it.
        form: The prompt.
        passages: The chunks that the prompt was made from; quotes are spans of these.
        usage: The tokens that it took.
    """
    said = without_thoughts(reply)
    if finish_reason == "content_filter":
        draft = Draft("The service's content filter withheld the answer.", outcome="filtered")
    elif finish_reason == "length":
        draft = replace(parse_cited_reply(said, form.context, passages), outcome="truncated")
        if not draft.quotes:
            draft = replace(draft, text=_CUT_OFF)
    elif not said.strip():
        what = "nothing but what the model thought" if reply.strip() else "empty"
        draft = Draft(f"the reply is {what}: ask another model, or ask again", outcome="failed")
    else:
        draft = parse_cited_reply(said, form.context, passages)
    return replace(draft, usage=usage, passages_left_out=form.passages_left_out)
