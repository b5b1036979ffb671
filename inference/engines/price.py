"""What a generated answer costs."""

from pydantic import BaseModel, Field


class TokenPrice(BaseModel):
    """The price of a model's tokens in US dollars, as services list it."""

    usd_per_million_input: float | None = Field(default=None, ge=0)
    """For a million tokens read."""
    usd_per_million_output: float | None = Field(default=None, ge=0)
    """For a million tokens written."""

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Returns the price of a request's tokens; None where a price is not set."""
        if self.usd_per_million_input is None or self.usd_per_million_output is None:
            return None
        cost = prompt_tokens * self.usd_per_million_input + completion_tokens * self.usd_per_million_output
        return cost / 1e6
