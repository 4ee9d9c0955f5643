"""Layers of ESANet that its encoders, its trunk and its decoder share."""

from __future__ import annotations

from torch import Tensor, nn

#: Of BatchNorm in these blocks, as in ERFNet's code and ESANet's; elsewhere torch's 1e-5.
BLOCK_EPS = 1e-3


class NonBottleneck1D(nn.Module):
    """Residual block whose two 3x3 convolutions are each split into 3x1 and 1x3, with a ReLU between all four.

    Unlike the blocks of ResNet its convolutions have a bias, and BatchNorm follows each pair alone. The arguments are
    those of torchvision's blocks, so that torchvision's ResNet can be made of it; its dropout has rate 0 in ESANet and
    is left out.

    Args:
        inplanes: Channels of the input.
        planes: Channels of the result.
        stride: Of the first pair.
        downsample: Brings the input to the result's shape; None where it has it.
        others: What torchvision's ResNet hands over for groups, width, dilation and norm; without effect.
        named: Likewise.

    Source:
        ERFNet (Romera et al., T-ITS 2018) and ESANet (Seichter et al., ICRA 2021, arXiv:2011.06961).
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        *others: object,
        **named: object,
    ) -> None:
        super().__init__()
        # The names are those of the authors' ImageNet weights.
        self.conv3x1_1 = nn.Conv2d(inplanes, planes, (3, 1), stride=(stride, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(planes, planes, (1, 3), stride=(1, stride), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(planes, eps=BLOCK_EPS)
        self.conv3x1_2 = nn.Conv2d(planes, planes, (3, 1), padding=(1, 0))
        self.conv1x3_2 = nn.Conv2d(planes, planes, (1, 3), padding=(0, 1))
        self.bn2 = nn.BatchNorm2d(planes, eps=BLOCK_EPS)
        self.act = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) -> (B, planes, H / stride, W / stride), rounded up."""
        identity = x if self.downsample is None else self.downsample(x)
        inner = self.act(self.bn1(self.conv1x3_1(self.act(self.conv3x1_1(x)))))
        inner = self.bn2(self.conv1x3_2(self.act(self.conv3x1_2(inner))))
        result: Tensor = self.act(inner + identity)
        return result


def conv_bn_act(channels: int, width: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps the size, without bias, then BatchNorm and ReLU."""
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


#: Option text of everything that can be initialised so.
HE_INIT_HELP = "Kaiming normal (fan out) instead of torch's initialisation, as ESANet has it for Cityscapes"


def he_initialise(module: nn.Module) -> None:
    """Draw convolutions and linear layers from Kaiming normal (fan out); biases and BatchNorm stay as they are.

    ESANet's ``--he_init`` spares what gives logits, what stands in front of a sigmoid, and depthwise convolutions: it
    is for the caller to hand over the rest alone.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
