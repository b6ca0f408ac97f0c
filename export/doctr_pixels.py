"""The pixels that docTR's networks see."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def normalised(images: np.ndarray[Any, Any], model: Any) -> Tensor:
    """Return uint8 [n,H,W,3] as docTR's PreProcessor gives them to a model: float32 [n,3,H,W]."""
    mean, std = (torch.tensor(model.cfg[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255) - mean) / std
