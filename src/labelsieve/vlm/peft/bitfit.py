"""Training the biases alone (BitFit; Ben Zaken et al., ACL 2022)."""

from __future__ import annotations

from labelsieve.core.errors import setting, shown
from labelsieve.vlm.peft.functional_parameters import FunctionalParameters
from labelsieve.vlm.peft.target_layers import Encoder, ModuleSpec, UnsupportedEncoderError


def build(vlm: Encoder, _spec: ModuleSpec) -> FunctionalParameters:
    """Returns trainable copies of all biases of the image encoder: of linear layers and of layer norms.

    Raises:
        UnsupportedEncoderError: The image encoder has no biases.
    """
    names = [name for name, _ in vlm.image_encoder.named_parameters() if name.endswith("bias")]
    if not names:
        raise UnsupportedEncoderError(
            f"{setting('peft')} bitfit trains biases, and the image encoder of {shown(vlm.name)} has none"
        )
    return FunctionalParameters(vlm, names)
