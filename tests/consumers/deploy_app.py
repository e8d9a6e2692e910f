"""An application of MONAI Deploy: reads an image, segments it by a bundle's model.ts, writes the label map.

    HOLOSCAN_MODEL_PATH=model.ts python deploy_app.py OUT.npz loaded IMAGE [IMAGE ...]
    HOLOSCAN_MODEL_PATH=model.ts python deploy_app.py OUT.npz dicom VOLUME

Runs in the environment .venv-deploy. The SDK leaves a bundle's loading of images out, and to the application. "loaded"
gives what the bundle's first transform makes of an image, or of the modalities of one volume: channels first. "dicom"
gives a volume as the SDK's DICOMSeriesToVolumeOperator does: by slice, row and column, without channels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Fragment, Image, IOType, Operator, OperatorSpec
from monai.deploy.operators.monai_bundle_inference_operator import (
    IOMapping,
    MonaiBundleInferenceOperator,
    get_bundle_config,
)


def as_loaded(image: MetaTensor) -> Image:
    return Image(image.numpy(), {**image.meta, "spacing": image.pixdim.numpy()})


def as_dicom(image: MetaTensor) -> Image:
    names = ("row_pixel_spacing", "col_pixel_spacing", "depth_pixel_spacing")
    metadata = dict(zip(names, image.pixdim.tolist(), strict=True))
    metadata["nifti_affine_transform"] = image.affine.numpy()
    return Image(image.numpy().reshape(image.shape[-3:]).T, metadata)


class Loader(Operator):
    def __init__(self, fragment: Fragment, *args, kind: str, paths: list[str], **kwargs) -> None:
        self.kind, self.paths = kind, paths
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("image")

    def compute(self, op_input, op_output, context) -> None:
        config = get_bundle_config(os.environ["HOLOSCAN_MODEL_PATH"], "inference")
        image = config.get_parsed_content("preprocessing").transforms[0]({"image": self.paths})["image"]
        op_output.emit({"loaded": as_loaded, "dicom": as_dicom}[self.kind](image), "image")


class Writer(Operator):
    def __init__(self, fragment: Fragment, *args, path: str, **kwargs) -> None:
        self.path = path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("pred")

    def compute(self, op_input, op_output, context) -> None:
        result = op_input.receive("pred")
        affine = result.metadata().get("original_affine", np.eye(4))  # pictures have none
        np.savez(self.path, labels=result.asnumpy(), affine=np.asarray(affine))


class Segmentation(Application):
    def __init__(self, output: str, kind: str, images: list[str]) -> None:
        self.output, self.kind, self.images = output, kind, images
        super().__init__()

    def compose(self) -> None:
        inference = MonaiBundleInferenceOperator(
            self,
            app_context=Application.init_app_context({}),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            name="inference",
        )
        once = CountCondition(self, 1)
        loader = Loader(self, once, kind=self.kind, paths=self.images, name="loader")
        self.add_flow(loader, inference, {("image", "image")})
        self.add_flow(inference, Writer(self, path=self.output, name="writer"), {("pred", "pred")})


if __name__ == "__main__":
    Segmentation(sys.argv[1], sys.argv[2], sys.argv[3:]).run()
    if not Path(sys.argv[1]).exists():
        raise SystemExit(f"{sys.argv[1]}: was not written")
