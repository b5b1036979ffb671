"""The loss of one step: how far the embedder's lists are from those that it is to learn."""

import torch
import torch.nn.functional as functional

_SMALLEST_DIMENSION = 64


def matryoshka_dimensions(dimension: int) -> tuple[int, ...]:
    """Returns the lengths at which vectors are trained to be good: the full one, and halves of it.

    Kusupati et al., "Matryoshka Representation Learning" (2022).
    """
    lengths = [dimension]
    while lengths[-1] // 2 >= _SMALLEST_DIMENSION:
        lengths.append(lengths[-1] // 2)
    return tuple(lengths)


def listwise_loss(
    questions: torch.Tensor, passages: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns the cross-entropy of each question's list, averaged over the Matryoshka lengths.

    Its gradient is that of the divergence of the embedder's distribution from the target's. With targets that
    are all on the right passages it is InfoNCE.

    Args:
        questions: Unit vectors, (questions, dimension).
        passages: Unit vectors of the passages of all their lists, (passages, dimension).
        targets: What each question's distribution is to be, (questions, passages); rows sum to 1.
        temperature: What cosines are divided by.

    Returns:
        (questions,) float32.
    """
    lengths = matryoshka_dimensions(questions.shape[1])
    losses = []
    for length in lengths:
        cosines = functional.normalize(questions[:, :length], dim=-1) @ (
            functional.normalize(passages[:, :length], dim=-1).T
        )
        losses.append(-(targets * functional.log_softmax(cosines / temperature, dim=-1)).sum(dim=-1))
    return torch.stack(losses).mean(dim=0)
