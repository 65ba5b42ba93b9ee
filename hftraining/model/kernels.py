"""Loops over numbers that torch's CPU operators walk through several times: one pass each, in fp32, on one thread.

Where a docstring says so, an array may also hold the bits of bfloat16 as uint16, which are read and written as such.

model/layers.py gives them their derivatives and says when they are used; its plain formulas are what they must equal.

Legend: N rows (a bar of a symbol), D width, B sequences of bars, L bars, H heads, E width of a head, W windows,
R random words.
"""

# mypy: allow-untyped-defs
# numba infers the types of compiled functions from the calls.

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # lets sums run in vectors; NaN and infinity keep their meaning
_kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
_f32 = np.float32


def _number(x):
    """In fp32: x itself, or the bfloat16 whose bits x is."""
    raise NotImplementedError  # outside of compiled functions


@overload(_number, inline="always")
def _number_of(x):
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << 16).view(np.float32)
    return lambda x: x


def _as(x, like):
    """x in fp32, or where `like` is the bits of a bfloat16 those of the nearest one, ties to even."""
    raise NotImplementedError


@overload(_as, inline="always")
def _as_kind_of(x, like):
    if like == types.uint16:
        return lambda x, like: _bits(x)
    return lambda x, like: x


@_kernel
def _bits(x):
    bits = np.float32(x).view(np.uint32)
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@_kernel
def rms_norm(x_ND, weight_D, eps, out_ND, inverse_N):
    """Write x / rms(x) * weight, and 1 / rms(x), where rms(x)**2 is the mean square of a row plus eps."""
    for n in range(x_ND.shape[0]):
        square = _f32(0)
        for d in range(x_ND.shape[1]):
            square += x_ND[n, d] * x_ND[n, d]
        inverse = _f32(1) / math.sqrt(square / _f32(x_ND.shape[1]) + eps)
        inverse_N[n] = inverse
        for d in range(x_ND.shape[1]):
            out_ND[n, d] = x_ND[n, d] * inverse * weight_D[d]


@_kernel
def rms_norm_backward(gradient_ND, x_ND, weight_D, inverse_N, towards_x_ND, towards_weight_D):
    """Write the gradient of x, and add that of the weight to a float64 array."""
    n_rows, width = x_ND.shape
    some_D = np.empty(width, np.float32)  # of a few rows: float64 for each takes half the time of the whole
    for first in range(0, n_rows, 16):
        for d in range(width):
            some_D[d] = 0
        for n in range(first, min(first + 16, n_rows)):
            inverse, along = inverse_N[n], _f32(0)
            for d in range(width):
                along += gradient_ND[n, d] * weight_D[d] * x_ND[n, d]
            along *= inverse * inverse * inverse / _f32(width)
            for d in range(width):
                some_D[d] += gradient_ND[n, d] * x_ND[n, d] * inverse
                towards_x_ND[n, d] = gradient_ND[n, d] * weight_D[d] * inverse - x_ND[n, d] * along
        for d in range(width):
            towards_weight_D[d] += some_D[d]


@_kernel
def gelu(x_N, out_N, slope_N):
    """Write x * Phi(x) and its derivative, Phi the normal distribution function; all may be of bfloat16."""
    for n in range(x_N.size):
        out, slope = _gelu(_number(x_N[n]))
        out_N[n], slope_N[n] = _as(out, out_N[n]), _as(slope, slope_N[n])


@_kernel
def gelu_alone(x_N, out_N):
    """Write x * Phi(x)."""
    for n in range(x_N.size):
        out_N[n] = _gelu(x_N[n])[0]


@_kernel
def gelu_rows(x_ND, bias_D, out_ND):
    """Write gelu(x + bias); x and what is written may be of bfloat16."""
    for n in range(x_ND.shape[0]):
        for d in range(x_ND.shape[1]):
            out_ND[n, d] = _as(_gelu(_number(x_ND[n, d]) + bias_D[d])[0], out_ND[n, d])


@_kernel
def gelu_rows_backward(x_ND, bias_D, out_ND, towards_ND):
    """Write gelu(x + bias), and multiply the gradient of that by its derivative, so that it is the gradient of x.

    All but the bias may be of bfloat16.
    """
    for n in range(x_ND.shape[0]):
        for d in range(x_ND.shape[1]):
            out, slope = _gelu(_number(x_ND[n, d]) + bias_D[d])
            out_ND[n, d] = _as(out, out_ND[n, d])
            towards_ND[n, d] = _as(_number(towards_ND[n, d]) * slope, towards_ND[n, d])


@_kernel
def _gelu(x):
    """Phi as torch has it on a CPU: Abramowitz and Stegun 7.1.26, to 1.5e-7."""
    bell = _exp(max(_f32(-0.5) * x * x, _f32(-80)))
    t = _f32(1) / (_f32(1) + _f32(0.3275911 * 0.5**0.5) * abs(x))
    tail = _f32(1.421413741) + t * (_f32(-1.453152027) + t * _f32(1.061405429))
    tail = _f32(0.5) * bell * t * (_f32(0.254829592) + t * (_f32(-0.284496736) + t * tail))
    phi = tail if x < _f32(0) else _f32(1) - tail
    return x * phi, phi + x * bell * _f32(0.3989422804014327)  # 1 / sqrt(2 pi)


@_kernel
def split_heads(qkv_BL3HE, cos_LE, sin_LE, before, query_BHLE, key_BHLE, value_BHLE):
    """Write values, and queries and keys rotated in pairs (first half, second half) by the angle of their bar.

    before: the place of the first bar in what is written.
    """
    half = cos_LE.shape[1]
    for b in range(qkv_BL3HE.shape[0]):
        for i in range(qkv_BL3HE.shape[1]):
            for h in range(qkv_BL3HE.shape[3]):
                for e in range(half):
                    cos, sin = cos_LE[i, e], sin_LE[i, e]
                    first, second = qkv_BL3HE[b, i, 0, h, e], qkv_BL3HE[b, i, 0, h, e + half]
                    query_BHLE[b, h, before + i, e] = first * cos - second * sin
                    query_BHLE[b, h, before + i, e + half] = first * sin + second * cos
                    first, second = qkv_BL3HE[b, i, 1, h, e], qkv_BL3HE[b, i, 1, h, e + half]
                    key_BHLE[b, h, before + i, e] = first * cos - second * sin
                    key_BHLE[b, h, before + i, e + half] = first * sin + second * cos
                for e in range(2 * half):
                    value_BHLE[b, h, before + i, e] = qkv_BL3HE[b, i, 2, h, e]


@_kernel
def join_heads(query_BHLE, key_BHLE, value_BHLE, cos_LE, sin_LE, qkv_BL3HE):
    """The transpose of split_heads: with the same angles it turns back, so it is also its gradient."""
    half = cos_LE.shape[1]
    for b in range(qkv_BL3HE.shape[0]):
        for i in range(qkv_BL3HE.shape[1]):
            for h in range(qkv_BL3HE.shape[3]):
                for e in range(half):
                    cos, sin = cos_LE[i, e], sin_LE[i, e]
                    first, second = query_BHLE[b, h, i, e], query_BHLE[b, h, i, e + half]
                    qkv_BL3HE[b, i, 0, h, e] = first * cos + second * sin
                    qkv_BL3HE[b, i, 0, h, e + half] = second * cos - first * sin
                    first, second = key_BHLE[b, h, i, e], key_BHLE[b, h, i, e + half]
                    qkv_BL3HE[b, i, 1, h, e] = first * cos + second * sin
                    qkv_BL3HE[b, i, 1, h, e + half] = second * cos - first * sin
                for e in range(2 * half):
                    qkv_BL3HE[b, i, 2, h, e] = value_BHLE[b, h, i, e]


@_kernel
def random_words(key_W, word_WR):
    """Write the first words of the SplitMix64 streams that begin at the keys, both uint64."""
    for w in range(word_WR.shape[0]):
        for r in range(word_WR.shape[1]):
            word = key_W[w] + np.uint64(r + 1) * np.uint64(0x9E3779B97F4A7C15)
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            word_WR[w, r] = word ^ (word >> np.uint64(31))


@_kernel
def add_kept(x_N, y_N, lane_N, least, scale, out_N):
    """Write x + y * scale where a lane is at least `least`, else x + y * 0; y may be of bfloat16."""
    for n in range(x_N.size):
        out_N[n] = x_N[n] + _number(y_N[n]) * (scale if lane_N[n] >= least else _f32(0))


@_kernel
def kept(y_N, lane_N, least, scale, out_N):
    """Write y * scale where a lane is at least `least`, else y * 0; what is written may be of bfloat16."""
    for n in range(y_N.size):
        out_N[n] = _as(y_N[n] * (scale if lane_N[n] >= least else _f32(0)), out_N[n])


@_kernel
def _exp(x):
    """e**x in fp32 for -80 <= x <= 80, to 2 units of the last place. Source: Cephes, expf."""
    n = np.floor(x * _f32(1.44269504088896341) + _f32(0.5))
    rest = x - n * _f32(0.693359375) + n * _f32(2.12194440e-4)
    p = _f32(1.9875691500e-4)
    p = p * rest + _f32(1.3981999507e-3)
    p = p * rest + _f32(8.3334519073e-3)
    p = p * rest + _f32(4.1665795894e-2)
    p = p * rest + _f32(1.6666665459e-1)
    p = p * rest + _f32(5.0000001201e-1)
    p = p * rest * rest + rest + _f32(1)
    return p * np.int32(np.int32(n + _f32(127)) << 23).view(np.float32)  # times 2**n
