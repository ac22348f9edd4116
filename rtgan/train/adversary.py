"""The other side of a generative adversarial network: its settings, its optimiser, its step.

The generator's side (`Adversary.terms`) lets gradients through to the estimate and leaves the discriminators as they
are; the discriminators' side (`Adversary.step`) sees estimates without their history and leaves the generator as it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from .discriminators import Discriminators
from .losses import adversarial, discriminating, feature_matching

TERMS = ("adversarial", "feature")


@dataclass(frozen=True)
class AdversarySettings:
    """When and how strongly discriminators take part.

    Attributes
    ----------
    start_step : int
        First step in which the generator hears of them.
    lead_steps : int
        So many steps earlier the discriminators begin to learn.
    weight, feature_weight : float
        Of the adversarial loss and of feature matching in the generator's sum.
    loss : str
        ``"hinge"`` or ``"least-squares"``.
    learning_rate : float
        Of the discriminators; it falls in proportion with the generator's.
    every_steps : int
        The discriminators learn in every so manieth step.
    segment_seconds : float
        Length of the piece, one for all examples of a step, that they are shown; 0 shows all.
    discriminators : sequence of mapping
        ``kind`` and settings of each, see `discriminators`.
    """

    start_step: int = 0
    lead_steps: int = 0
    weight: float = 1.0
    feature_weight: float = 2.0
    loss: str = "hinge"
    learning_rate: float = 2e-4
    every_steps: int = 1
    segment_seconds: float = 0.0
    discriminators: Sequence[Mapping[str, Any]] = field(
        default_factory=lambda: [{"kind": "stft", "n_fft": n} for n in (512, 1024, 2048)]
    )

    def __post_init__(self) -> None:
        if self.loss not in ("hinge", "least-squares"):
            raise UsageError(f"adversary.loss is {self.loss!r} but must be hinge or least-squares.")
        if min(self.weight, self.feature_weight, self.start_step, self.lead_steps, self.segment_seconds) < 0:
            raise UsageError("adversary: weights, steps and segment_seconds must be at least 0.")
        if self.learning_rate <= 0 or self.every_steps < 1:
            raise UsageError("adversary: learning_rate and every_steps must be above 0.")
        if not isinstance(self.discriminators, list | tuple):
            raise UsageError("adversary.discriminators must be a list.")


class Adversary:
    """Discriminators with their optimiser.

    Parameters
    ----------
    settings : AdversarySettings
        What there is.
    sample_rate_hz : int
        Of the signals.
    device : torch.device
        Where they live.
    gradient_clip : float
        Largest norm of a step's gradient.
    """

    def __init__(
        self, settings: AdversarySettings, sample_rate_hz: int, device: torch.device, gradient_clip: float = 1.0
    ) -> None:
        self.settings, self.gradient_clip = settings, gradient_clip
        self.segment_samples = round(settings.segment_seconds * sample_rate_hz)
        self.net = Discriminators(settings.discriminators).to(device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), settings.learning_rate, betas=(0.8, 0.99))

    def learns(self, step: int) -> bool:
        """Whether the discriminators are to learn in this step."""
        settings = self.settings
        return step >= settings.start_step - settings.lead_steps and step % settings.every_steps == 0

    def speaks(self, step: int) -> bool:
        """Whether the generator is to hear of them in this step."""
        return step >= self.settings.start_step

    def piece(self, samples: int, step: int) -> slice:
        """The piece of the signals that a step looks at, a function of its number."""
        length = self.segment_samples
        if not 0 < length < samples:
            return slice(None)
        start = int(torch.randint(samples - length + 1, (), generator=torch.Generator().manual_seed(step)))
        return slice(start, start + length)

    def weights(self) -> dict[str, float]:
        """Weights of the generator's `TERMS`."""
        return dict(zip(TERMS, (self.settings.weight, self.settings.feature_weight), strict=True))

    def terms(self, estimate: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The generator's adversarial and feature loss; gradients reach the estimate, never the discriminators."""
        frozen = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        # spectral norms refine themselves in training mode; in a step of the generator they stay as they are
        self.net.eval()
        try:
            scores, given = self.net(estimate)
            values = {"adversarial": adversarial(scores, self.settings.loss)}
            if self.settings.feature_weight > 0:
                with torch.no_grad():
                    _, wanted = self.net(target)
                values["feature"] = feature_matching(wanted, given)
        finally:
            self.net.train()
            for parameter in frozen:
                parameter.requires_grad_(True)
        return {name: value for name, value in values.items() if self.weights()[name] > 0}

    def step(self, estimate: Tensor, target: Tensor, rate: float, gather: Callable[[Sequence[Tensor]], None]) -> Tensor:
        """Teach the discriminators once.

        Parameters
        ----------
        estimate, target : Tensor
            ``(batch, samples)``; no gradient leaves through them.
        rate : float
            Share of the learning rate, 0..1.
        gather : callable
            Brings gradients to their mean over processes, in place.

        Returns
        -------
        Tensor
            The discriminators' loss.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * rate
        both, _ = self.net(torch.cat((target.detach(), estimate.detach())))
        halves = [score.chunk(2) for score in both]
        loss = discriminating([h[0] for h in halves], [h[1] for h in halves], self.settings.loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gather([p.grad for p in self.net.parameters() if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.gradient_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Begin with the discriminators of another run, if they are of the same make."""
        own = self.net.state_dict()
        if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state["net"].items()}:
            self.net.load_state_dict(state["net"])
