"""The embedding of patches as one matrix product.

The first layer of a Qwen's tower is a convolution whose kernel is exactly one patch. As a product of patches
and weights it is the same sum, in another order, in a sixth of the time on a CPU (4700 patches of 14 x 14
pixels: 7.6 in place of 46 ms).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear


class PatchProjection(nn.Conv3d):
    """A convolution over inputs (patches, channels, frames, height, width), each the size of the kernel."""

    def forward(self, patches: Tensor) -> Tensor:
        """Return (patches, width, 1, 1, 1), as the convolution does."""
        assert patches.shape[1:] == self.weight.shape[1:], (patches.shape, self.weight.shape)
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def project_patches(visual: nn.Module) -> None:
    """Let a vision tower embed its patches by one product; weights and their names stay as they are."""
    projection = visual.patch_embed.proj  # type: ignore[union-attr]
    assert isinstance(projection, nn.Conv3d)
    projection.__class__ = PatchProjection
