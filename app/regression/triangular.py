"""The triangular solution of BLAS, called without the interpreter's lock, which scipy's own wrapper holds."""

import ctypes
from typing import Any

from scipy.linalg import cython_blas

from app.regression.sufficient_statistics import Array


def _function(name: str) -> Any:
    """Return a function of scipy's BLAS. Pointers to them are scipy's interface for compiled code."""
    capsule = cython_blas.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # side, uplo, transa, diag, m, n, alpha, a, lda, b, ldb
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 11)(get_pointer(capsule, get_name(capsule)))


_dtrsm = _function("dtrsm")


def whiten(columns: Array, factor: Array) -> None:
    """Replace Z by Z R^-1 in place, for an upper-triangular factor R. `columns`, (d, m) in C order, is Z transposed.

    BLAS sees arrays in Fortran order, transposed: columns as Z, and R as R', which is lower triangular.
    """
    count, rows = columns.shape
    assert columns.flags.c_contiguous
    assert factor.flags.c_contiguous
    assert factor.shape == (count, count)
    m, n, one = (ctypes.byref(value) for value in (ctypes.c_int(rows), ctypes.c_int(count), ctypes.c_double(1.0)))
    _dtrsm(b"R", b"L", b"T", b"N", m, n, one, factor.ctypes.data, n, columns.ctypes.data, m)
