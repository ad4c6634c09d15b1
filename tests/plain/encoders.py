"""The coefficient regressors of DECA and Deep3DFaceRecon as functions of a state dict with the published
names: ResNet-50 (He et al. 2016, stride in the 3x3 convolutions) and what follows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.plain.stylegan2 import Params, scope


def dense(params: Params, name: str, x: Tensor) -> Tensor:
    """``x [b,i]`` to ``[b,o]``; the weight may be a 1x1 convolution's."""
    return x @ params[f"{name}.weight"].flatten(1).T + params[f"{name}.bias"]


def norm(params: Params, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch normalisation with the running statistics."""
    own = {key: value[:, None, None] for key, value in scope(params, name).items() if value.ndim}
    return (x - own["running_mean"]) / (own["running_var"] + eps).sqrt() * own["weight"] + own["bias"]


def bottleneck(params: Params, x: Tensor, stride: int) -> Tensor:
    """1x1, 3x3 (which strides) and 1x1 convolution beside a short cut."""
    y = norm(params, "bn1", F.conv2d(x, params["conv1.weight"])).clamp(min=0)
    y = norm(params, "bn2", F.conv2d(y, params["conv2.weight"], stride=stride, padding=1)).clamp(min=0)
    y = norm(params, "bn3", F.conv2d(y, params["conv3.weight"]))
    if "downsample.0.weight" in params:
        x = norm(params, "downsample.1", F.conv2d(x, params["downsample.0.weight"], stride=stride))
    return (x + y).clamp(min=0)


def resnet50(params: Params, images: Tensor) -> Tensor:
    """``images [b,3,h,w]`` to features ``[b,2048]``."""
    x = norm(params, "bn1", F.conv2d(images, params["conv1.weight"], stride=2, padding=3)).clamp(min=0)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = bottleneck(scope(params, f"layer{stage}.{block}"), x, stride)
    return x.mean((2, 3))


def deca(params: Params, images: Tensor) -> Tensor:
    """``E_flame`` or ``E_detail``: ``images [b,3,224,224]`` in 0..1 to coefficients ``[b,n]``."""
    features = resnet50(scope(params, "encoder"), images)
    return dense(params, "layers.2", dense(params, "layers.0", features).clamp(min=0))


def deca_detail(params: Params, jaw: Tensor, expression: Tensor, detail: Tensor) -> Tensor:
    """``D_detail``: jaw ``[b,3]``, expression and detail coefficients to displacements ``[b,1,256,256]``."""
    x = dense(params, "l1.0", torch.cat([jaw, expression, detail], 1)).reshape(len(jaw), 128, 8, 8)
    x = norm(params, "conv_blocks.0", x)
    for place in range(1, 21, 4):  # up-sampling, convolution, norm, activation
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        own = scope(params, f"conv_blocks.{place + 1}")
        x = norm(params, f"conv_blocks.{place + 2}", F.conv2d(x, own["weight"], own["bias"], padding=1), 0.8)
        x = torch.where(x > 0, x, 0.2 * x)
    own = scope(params, "conv_blocks.21")
    return torch.tanh(F.conv2d(x, own["weight"], own["bias"], padding=1)) * 0.01


def deep3d(params: Params, images: Tensor) -> Tensor:
    """``net_recon``: ``images [b,3,224,224]`` in 0..1 to coefficients ``[b,257]``."""
    features = resnet50(scope(params, "backbone"), images)
    return torch.cat([dense(params, f"final_layers.{i}", features) for i in range(7)], 1)
