"""The outputs of each kind of task: how two of them are mixed, and their losses (ours).

With K outputs z per image:

    task              probabilities                       loss                          labels
    classification    softmax(z) over K classes           cross-entropy                 (B,) classes, or (B, K) shares
    multilabel        σ(z) for each of K labels           binary cross-entropy, mean    (B, K) in [0, 1]
    regression        z is the mean of each of K values   squared error, mean           (B, K)
"""

from __future__ import annotations

from torch import Tensor, float32, logaddexp, promote_types
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, logsigmoid, mse_loss

from emoreg.config.schema import Task


def mix_probabilities(
    non_emotional: Tensor, emotional: Tensor, log_odds: Tensor, task: Task = "classification"
) -> Tensor:
    """Return outputs z (B, K) with the probabilities (1 - λ) · p(z_n) + λ · p(z_e).

    Computed in log space, so that no λ or probability is rounded to 0 or 1, and at least in float32, as the loss of a
    plain network is in mixed precision. For a regression, z is the mean of the mixture, (1 - λ) · z_n + λ · z_e.

    Args:
        non_emotional: z_n (B, K).
        emotional: z_e (B, K).
        log_odds: of λ, broadcastable to (B, K). With one λ per class, the mixed probabilities need not sum to
            1; the softmax of z renormalises them.
        task: what the outputs are.
    """
    non_emotional, emotional, log_odds = map(_unrounded, (non_emotional, emotional, log_odds))
    if task == "regression":
        lam = log_odds.sigmoid()
        return (1 - lam) * non_emotional + lam * emotional
    log_n, log_e = logsigmoid(-log_odds), logsigmoid(log_odds)  # log(1 - λ), log λ
    if task == "classification":
        return logaddexp(non_emotional.log_softmax(dim=1) + log_n, emotional.log_softmax(dim=1) + log_e)
    present = logaddexp(logsigmoid(non_emotional) + log_n, logsigmoid(emotional) + log_e)
    absent = logaddexp(logsigmoid(-non_emotional) + log_n, logsigmoid(-emotional) + log_e)
    return present - absent


def task_loss(
    output: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    task: Task = "classification",
) -> Tensor:
    """The mean loss of outputs (B, K) over a batch; see `regulation.regulation_loss` for the arguments.

    Label smoothing moves multilabel targets towards 1/2, as it moves classes towards 1/K.
    """
    if task == "regression":
        return mse_loss(output.float(), labels.float())
    if task == "multilabel":
        smoothed = labels * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else labels
        return binary_cross_entropy_with_logits(output.float(), smoothed.float())
    if class_weights is None:
        return cross_entropy(output, labels, label_smoothing=label_smoothing)
    dtype = promote_types(output.dtype, class_weights.dtype)  # cross_entropy requires the same dtype
    output, class_weights = output.to(dtype), class_weights.to(output.device, dtype)
    total = cross_entropy(output, labels, class_weights, label_smoothing=label_smoothing, reduction="sum")
    return total / len(output)


def disagreement(non_emotional: Tensor, emotional: Tensor, task: Task = "classification") -> Tensor:
    """D(z_n, z_e) = KL(p_e ‖ p_n) + KL(p_n ‖ p_e), averaged over images; the target of each term is detached.

    The loss of deep mutual learning (Zhang et al. 2018), which distils each branch into the other during training. In
    a multilabel task it is averaged over labels too. In a regression the outputs are the means of Gaussians with
    variance 1/2, so that D, like the loss, is a squared error. Computed at least in float32, as the loss.

    Args:
        non_emotional: z_n (B, K).
        emotional: z_e (B, K).
        task: what the outputs are.
    """
    non_emotional, emotional = _unrounded(non_emotional), _unrounded(emotional)
    if task == "regression":
        return mse_loss(non_emotional, emotional.detach()) + mse_loss(emotional, non_emotional.detach())
    if task == "multilabel":
        return _binary_kl(non_emotional, emotional.detach()) + _binary_kl(emotional, non_emotional.detach())
    log_n, log_e = non_emotional.log_softmax(dim=1), emotional.log_softmax(dim=1)
    to_emotional = kl_div(log_n, log_e.detach(), reduction="batchmean", log_target=True)
    return to_emotional + kl_div(log_e, log_n.detach(), reduction="batchmean", log_target=True)


def _binary_kl(output: Tensor, target: Tensor) -> Tensor:
    """The mean over images and labels of KL(σ(target) ‖ σ(output))."""
    present = target.sigmoid() * (logsigmoid(target) - logsigmoid(output))
    absent = (-target).sigmoid() * (logsigmoid(-target) - logsigmoid(-output))
    return (present + absent).mean()


def _unrounded(values: Tensor) -> Tensor:
    """Convert to float32 at least: in autocast on CPUs, `log_softmax` stays in bfloat16."""
    return values.to(promote_types(values.dtype, float32))
