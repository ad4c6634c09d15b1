"""Models that several test files share."""

import pytest
import torch

from portrait_core.face_model.head import MorphableHead
from portrait_core.inversion.features import build_features
from portrait_core.runtime.package_files import data_file


@pytest.fixture(scope="session")
def phi() -> torch.nn.Module:
    """The default perceptual features."""
    return build_features("efficientnet")


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    """The embedded head."""
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))
