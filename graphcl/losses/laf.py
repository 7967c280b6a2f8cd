"""Label-agnostic forgetting as modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional.laf import laf_alignment, laf_extraction, variational_reconstruction
from graphcl.functional.reduction import Reduction
from graphcl.losses._initialize import initialize_linear
from graphcl.losses.protocol import LossOutput

__all__ = ["LAFAlignment", "LAFExtraction", "RepresentationVAE"]


class RepresentationVAE(nn.Module):
    """Small variational autoencoder of representations; LAF trains one on retained and one on forgotten data.

    Its loss is `graphcl.functional.variational_reconstruction`. In evaluation mode the mean is decoded.

    Args:
        dim: d of the representations.
        hidden: width of the hidden layers.
        latent: width of the code.
        divergence_weight: of the divergence in `loss`.
        generator: draws the initial weights.

    Shapes: ``forward(x (N, d), generator=None)`` gives the reconstruction ``(N, d)``, mean and log variance
    ``(N, latent)``.

    >>> import torch
    >>> model = RepresentationVAE(4, hidden=8, latent=2, generator=torch.Generator().manual_seed(0))
    >>> model(torch.eye(4))[0].shape, bool(model.loss(torch.eye(4)) > 0)
    (torch.Size([4, 4]), True)
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: int = 256,
        latent: int = 32,
        divergence_weight: float = 0.025,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.divergence_weight = divergence_weight
        self.encoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        initialize_linear(self, generator)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        code = mean
        if self.training:
            noise = torch.randn(mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
            code = mean + noise * torch.exp(0.5 * log_variance)
        return self.decoder(code), mean, log_variance

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruction and divergence of a batch, to train the autoencoder."""
        output = variational_reconstruction(x, *self(x, generator), divergence_weight=self.divergence_weight)
        return output if isinstance(output, Tensor) else output[0]


class LAFExtraction(nn.Module):
    """Extraction step of LAF; see `graphcl.functional.laf_extraction`.

    Args:
        reduction: ``sum`` or ``mean``.

    Shapes: ``forward(retained (N, d), retained_reconstruction (N, d), forgotten (M, d), forgotten_reconstruction
    (M, d), *, return_components=False)``.

    >>> import torch
    >>> LAFExtraction()(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(1, 3))
    tensor(1.)
    """

    def __init__(self, reduction: Reduction = "sum") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(
        self,
        retained: Tensor,
        retained_reconstruction: Tensor,
        forgotten: Tensor,
        forgotten_reconstruction: Tensor,
        *,
        return_components: bool = False,
    ) -> LossOutput:
        return laf_extraction(
            retained,
            retained_reconstruction,
            forgotten,
            forgotten_reconstruction,
            return_components=return_components,
            reduction=self.reduction,
        )


class LAFAlignment(nn.Module):
    """Alignment step of LAF; see `graphcl.functional.laf_alignment`.

    Args:
        temperature: of the forgotten samples, 5 to 20.
        reduction: ``sum`` or ``mean``.

    Shapes: ``forward(retained (N, d), retained_teacher (N, d), forgotten (M, d), forgotten_teacher (M, d), *,
    return_components=False)``.

    >>> import torch
    >>> LAFAlignment()(*[torch.eye(2)] * 4)
    tensor(-1.3863)
    """

    def __init__(self, temperature: float = 5.0, reduction: Reduction = "sum") -> None:
        super().__init__()
        self.temperature = temperature
        self.reduction: Reduction = reduction

    def forward(
        self,
        retained: Tensor,
        retained_teacher: Tensor,
        forgotten: Tensor,
        forgotten_teacher: Tensor,
        *,
        return_components: bool = False,
    ) -> LossOutput:
        return laf_alignment(
            retained,
            retained_teacher,
            forgotten,
            forgotten_teacher,
            temperature=self.temperature,
            return_components=return_components,
            reduction=self.reduction,
        )
