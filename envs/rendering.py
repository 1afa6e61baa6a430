"""Images of a MuJoCo scene without a display: the OpenGL backend is chosen here, before mujoco is imported.

mujoco reads MUJOCO_GL once, while it is imported, and its import fails where the chosen library does not start.
So the backend is probed first: EGL, else OSMesa, else rendering is switched off and the simulation works without.
A MUJOCO_GL set by the user is respected.
"""

import ctypes
import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError

OFF = ("disable", "disabled", "off", "false", "0")
FIX = "install the Debian packages libegl1 and libgl1-mesa-dri, or libosmesa6"

_EGL_EXTENSIONS = 0x3055
_EGL_PLATFORM_DEVICE = 0x313F


def import_mujoco() -> ModuleType:
    """mujoco, imported with a backend that starts on this machine."""
    if "mujoco" not in sys.modules and "MUJOCO_GL" not in os.environ:
        backend = find_backend()
        if backend is not None:
            os.environ["MUJOCO_GL"] = backend
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        raise InputError(f'got no package {error.name}, wanted the simulator: pip install "ontick[sim]"') from error
    except (ImportError, AttributeError, RuntimeError) as error:
        asked = os.environ.get("MUJOCO_GL")
        raise InputError(f"got MUJOCO_GL={asked}, which does not start here ({error}): unset it, or {FIX}") from error


def find_backend() -> str | None:
    """On Linux "egl", "osmesa" or "disable", by trying the libraries; None elsewhere, where mujoco knows best."""
    if not sys.platform.startswith("linux"):
        return None
    if _egl_starts():
        return "egl"
    return "osmesa" if _osmesa_loads() else "disable"


def check_options(max_steps: int, render_mode: str | None) -> None:
    """What all environments have in common. Raises InputError."""
    if max_steps < 1:
        raise InputError(f"got max_steps={max_steps}, wanted at least 1")
    if render_mode not in (None, "rgb_array"):
        raise InputError(f"got render_mode={render_mode!r}, wanted None or 'rgb_array'")


def render_available() -> tuple[bool, str]:
    """Whether frames can be drawn here, and why (or why not)."""
    backend = os.environ.get("MUJOCO_GL", "").lower().strip()
    if not backend and "mujoco" not in sys.modules:
        backend = find_backend() or ""
    if backend in OFF:
        return False, f"got no OpenGL for rendering, wanted EGL or OSMesa: {FIX}"
    if (backend == "egl" and not _egl_starts()) or (backend == "osmesa" and not _osmesa_loads()):
        return False, f"got MUJOCO_GL={backend}, which does not start here: unset it, or {FIX}"
    windowed = backend not in ("egl", "osmesa") and sys.platform.startswith("linux")
    if windowed and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False, "got a mujoco that draws to a display, and no display: set MUJOCO_GL=egl before it is imported"
    return True, f"MUJOCO_GL={backend or 'default'}"


class Camera:
    """Frames of one camera of a model, drawn fast: without shadows, reflections and multisampling.

    Nothing is opened before the first frame, so an environment that never renders needs no OpenGL.
    """

    def __init__(self, model: Any, *, name: str, width: int, height: int, half_turn: bool = False):
        self._model, self._name, self._half_turn = model, name, half_turn
        self._width, self._height = width, height
        self._renderer: Any = None

    def frame(self, data: Any) -> np.ndarray:
        """The present frame, uint8 [height, width, 3]."""
        if self._renderer is None:
            self._renderer = self._open()
        self._renderer.update_scene(data, camera=self._name)
        image = self._renderer.render()
        return np.ascontiguousarray(image[::-1, ::-1]) if self._half_turn else image

    def _open(self) -> Any:
        available, reason = render_available()
        if not available:
            raise InputError(reason)
        mujoco = import_mujoco()
        # The context copies the quality when it is made: later changes would do nothing.
        self._model.vis.quality.shadowsize = 0
        self._model.vis.quality.offsamples = 0
        self._model.vis.global_.offwidth = max(self._model.vis.global_.offwidth, self._width)
        self._model.vis.global_.offheight = max(self._model.vis.global_.offheight, self._height)
        try:
            renderer = mujoco.Renderer(self._model, self._height, self._width)
        except Exception as error:  # each backend fails in its own way: FatalError, AttributeError, EGLError
            backend = os.environ.get("MUJOCO_GL", "default")
            raise InputError(f"got no OpenGL from MUJOCO_GL={backend} ({error}): unset it, or {FIX}") from error
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return renderer

    def close(self) -> None:
        """Free the OpenGL context. Drawing another frame opens a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


@functools.cache
def _egl_starts() -> bool:
    """Whether some EGL device gives a display: the calls that mujoco makes on import, which raise where they fail."""
    library = _load("libEGL.so.1")
    if library is None:
        return False
    find = library.eglGetProcAddress
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    library.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    query_address, display_address = find(b"eglQueryDevicesEXT"), find(b"eglGetPlatformDisplayEXT")
    library.eglQueryString.restype, library.eglQueryString.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]
    extensions = library.eglQueryString(None, _EGL_EXTENSIONS) or b""
    if not query_address or not display_address or b"EGL_EXT_platform_device" not in extensions:
        return False
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query_address)
    display_of = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(display_address)
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int(0)
    if not query(16, devices, ctypes.byref(count)):
        return False
    displays = (display_of(_EGL_PLATFORM_DEVICE, devices[i], None) for i in range(count.value))
    return any(display and library.eglInitialize(display, None, None) for display in displays)


def _osmesa_loads() -> bool:
    return any(_load(name) for name in ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"))


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
