"""What a network answers in each kind of task: how two answers are mixed, and what a wrong one costs (ours).

With K outputs z per image, labels y, and λ = σ(ρ):

    task              an answer's probabilities           loss of an answer             labels
    classification    softmax(z) over K classes           cross-entropy                 (B,) classes, or (B, K) shares
    multilabel        σ(z) for each of K labels           binary cross-entropy, mean    (B, K) in [0, 1]
    regression        z is the mean of each of K values   squared error, mean           (B, K)
"""

from __future__ import annotations

from torch import Tensor, logaddexp, promote_types
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, logsigmoid, mse_loss

from emoreg.config.schema import Task


def mix_probabilities(non_emotional: Tensor, emotional: Tensor, rho: Tensor, task: Task = "classification") -> Tensor:
    """The answer (B, K) whose probabilities are (1 - λ) times those of z_n and λ times those of z_e.

    Computed in log space, so that no λ or probability is rounded to 0 or 1. Values: the mean of the mixture, which is
    the mixture of the means.

    Args:
        non_emotional: z_n (B, K).
        emotional: z_e (B, K).
        rho: the log-odds of λ, broadcastable to (B, K). With one λ per class the mixture of classes need not sum to 1;
            the softmax of the returned value renormalises it.
        task: what the answers are.
    """
    if task == "regression":
        lam = rho.sigmoid()
        return (1 - lam) * non_emotional + lam * emotional
    of_n, of_e = logsigmoid(-rho), logsigmoid(rho)  # log(1 - λ), log λ
    if task == "classification":
        return logaddexp(non_emotional.log_softmax(dim=1) + of_n, emotional.log_softmax(dim=1) + of_e)
    present = logaddexp(logsigmoid(non_emotional) + of_n, logsigmoid(emotional) + of_e)
    absent = logaddexp(logsigmoid(-non_emotional) + of_n, logsigmoid(-emotional) + of_e)
    return present - absent


def answer_loss(
    answer: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    task: Task = "classification",
) -> Tensor:
    """The mean loss of a batch's answers (B, K); see `regulation.regulation_loss`.

    Smoothed labels of several are moved towards 1/2 by the same share as classes are towards 1/K.
    """
    if task == "regression":
        return mse_loss(answer.float(), labels.float())
    if task == "multilabel":
        smoothed = labels * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else labels
        return binary_cross_entropy_with_logits(answer.float(), smoothed.float())
    if class_weights is None:
        return cross_entropy(answer, labels, label_smoothing=label_smoothing)
    dtype = promote_types(answer.dtype, class_weights.dtype)  # cross_entropy wants one
    answer, class_weights = answer.to(dtype), class_weights.to(answer.device, dtype)
    total = cross_entropy(answer, labels, class_weights, label_smoothing=label_smoothing, reduction="sum")
    return total / len(answer)


def disagreement(non_emotional: Tensor, emotional: Tensor, task: Task = "classification") -> Tensor:
    """KL(p_e ‖ p_n) + KL(p_n ‖ p_e), averaged over images, each distribution a fixed target for the other.

    The loss of deep mutual learning (Zhang et al. 2018), which distils either branch into the other during training.
    Of several labels it is the mean over them; values count as the means of Gaussians of variance 1/2, so that D, like
    the loss, is a squared error.

    Args:
        non_emotional: z_n (B, K).
        emotional: z_e (B, K).
        task: what the answers are.
    """
    if task == "regression":
        return mse_loss(non_emotional, emotional.detach()) + mse_loss(emotional, non_emotional.detach())
    if task == "multilabel":
        return _binary_kl(non_emotional, emotional.detach()) + _binary_kl(emotional, non_emotional.detach())
    log_n, log_e = non_emotional.log_softmax(dim=1), emotional.log_softmax(dim=1)
    to_emotional = kl_div(log_n, log_e.detach(), reduction="batchmean", log_target=True)
    return to_emotional + kl_div(log_e, log_n.detach(), reduction="batchmean", log_target=True)


def _binary_kl(answer: Tensor, target: Tensor) -> Tensor:
    """KL(σ(target) ‖ σ(answer)), the mean over images and labels."""
    present = target.sigmoid() * (logsigmoid(target) - logsigmoid(answer))
    absent = (-target).sigmoid() * (logsigmoid(-target) - logsigmoid(-answer))
    return (present + absent).mean()
