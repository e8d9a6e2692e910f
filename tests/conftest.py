"""One seed and one thread for every test, so that a result does not depend on the machine's load or the order."""

import locale
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import itk
import matplotlib
import numpy as np
import pytest
import torch
from monai.utils import set_determinism

from tests.cpu_time import CpuTime

torch.set_num_threads(1)


def pytest_configure(config):
    config.pluginmanager.register(CpuTime())


@pytest.fixture(autouse=True)
def seed():
    set_determinism(0)
    matplotlib.rcdefaults()  # a study's plots may have left another style
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)  # ITK's writers leave "C", in which text files are read as ASCII
    set_determinism(None)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    """Skips a test that needs the extra [memcnn] where it is not installed."""
    try:
        return (yield)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ModuleNotFoundError) and cause.name == "memcnn":
                pytest.skip("memcnn is not installed: pip install 'unet-bundles[memcnn]'")
            cause = cause.__cause__ or cause.__context__
        raise


@pytest.fixture
def write_series() -> Callable[..., None]:
    """Writes a CT series of DICOM files with ITK, stored without sign as (hu + 1024) / 2 with slope and intercept."""

    def write(folder: Path, hu: np.ndarray, affine: np.ndarray, skip: tuple[int, ...] = (), uid: str = "1.2.3") -> None:
        """``hu`` is (x, y, z), even; ``affine`` leads to mm in RAS; the slices ``skip`` are left out."""
        folder.mkdir(parents=True, exist_ok=True)
        lps = np.diag([-1.0, -1, 1, 1]) @ affine  # DICOM's axes run to the left and the back
        spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
        direction = lps[:3, :3] / spacing_mm
        for k in sorted(set(range(hu.shape[2])) - set(skip)):
            image = itk.image_from_array(np.ascontiguousarray(hu[..., k : k + 1].T.astype(np.int16)))
            image.SetSpacing(spacing_mm)
            image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
            position_mm = lps[:3, 3] + k * lps[:3, 2]
            image.SetOrigin(position_mm)
            tags = {
                "0008|0018": f"{uid}.{k + 1}",  # of this file
                "0008|0021": "20260102",  # date
                "0008|0060": "CT",
                "0018|0050": str(spacing_mm[2]),  # thickness
                "0020|000d": "1.2",  # of the study
                "0020|000e": uid,  # of the series
                "0020|0013": str(k + 1),  # number
                "0020|0032": "\\".join(map(str, position_mm)),
                "0020|0037": "\\".join(map(str, direction[:, :2].T.ravel())),
                "0028|1052": "-1024",  # intercept
                "0028|1053": "2",  # slope
            }
            for tag, value in tags.items():
                image.GetMetaDataDictionary()[tag] = value
            io = itk.GDCMImageIO.New()
            io.KeepOriginalUIDOn()
            itk.ImageFileWriter.New(Input=image, FileName=str(folder / f"IM{k:03d}"), ImageIO=io).Update()
        locale.setlocale(locale.LC_ALL, before)

    before = locale.setlocale(locale.LC_ALL)  # the writer leaves "C", in which files with other letters cannot be read
    return write
