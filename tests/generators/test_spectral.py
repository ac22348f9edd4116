"""Fourier transforms and complex values, against torch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from comparing import of_width, worst  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

torch.set_num_threads(1)
S = (2, 5, 7)
T = (1, 3, 64)
HANN = torch.hann_window(32)
KERNEL = torch.randn(4, 5, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.randn(5, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))


def flat(result: Any) -> Any:
    """Complex results as pairs, the only form in which they leave a program."""
    if isinstance(result, tuple):
        return tuple(flat(r) for r in result)
    return torch.view_as_real(result.resolve_conj()) if result.is_complex() else result


def of_complex(function: Any) -> Any:
    return lambda x, y, *more: flat(function(torch.complex(x, y), *more))


def of_real(function: Any) -> Any:
    return lambda *x: flat(function(*x))


def put(z: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    a, b, c = z.clone(), torch.zeros(2, 5, 7, dtype=torch.complex64), z.clone()
    a[:, 0] = w[:, 1]
    b[..., 1:3] = z[..., :2]
    c.real.mul_(2.0)
    c.imag[0] = 0.5
    return a, b, c, z.clone().mul_(2j).add_(1)


def spectrum(x: Tensor) -> Tensor:
    return torch.stft(x, 32, 8, window=HANN, return_complex=True)


TRANSFORMS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    **{
        f"real {n}": (of_real(lambda x: (s := torch.fft.rfft(x), torch.fft.irfft(s * s, n=x.shape[-1]))), [(2, n)])
        for n in (2, 7, 48, 50, 64, 127, 480, 768, 1024)
    },
    "real 4096": (of_real(lambda x: (torch.fft.rfft(x), torch.fft.irfft(torch.fft.rfft(x).abs() * 1j))), [(1, 4096)]),
    "of another size": (of_real(lambda x: (torch.fft.rfft(x, 50), torch.fft.rfft(x, 100, norm="ortho"))), [T]),
    "norms": (of_real(lambda x: tuple(torch.fft.rfft(x, norm=m) for m in ("forward", "ortho"))), [T]),
    "another axis": (of_real(lambda x: (torch.fft.rfft(x, dim=1), torch.fft.fft(x, dim=0))), [T]),
    "complex": (
        of_complex(lambda z: (torch.fft.fft(z), torch.fft.ifft(z, 48), torch.fft.ifft(z, norm="ortho"))), [T, T],
    ),
    "complex 500": (of_complex(lambda z: (torch.fft.fft(z), torch.fft.ifft(z))), [(1, 500), (1, 500)]),
    "back": (
        of_complex(lambda z: (torch.fft.irfft(z), torch.fft.irfft(z, 33), torch.fft.irfft(z, 33, norm="forward"))),
        [T, T],
    ),
    "planes": (of_complex(lambda z: (torch.fft.fft2(z), torch.fft.irfft2(z), torch.fft.rfft2(z.real))), [T, T]),
    "of conjugates": (
        of_complex(lambda z: (torch.fft.hfft(z), torch.fft.ihfft(z.real), torch.fft.fft(z.conj()))), [T, T],
    ),
    "shifted": (lambda x: (torch.fft.fftshift(x, -1), torch.fft.ifftshift(x, 1)), [T]),
    "envelope": (lambda x: torch.fft.ifft(torch.fft.fft(x) * torch.linspace(2, 0, 64)).abs(), [T]),
    "late": (of_real(lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.exp(-1j * torch.linspace(0, 3, 33)))), [T]),
    "convolution": (
        lambda x, y: torch.fft.irfft(torch.fft.rfft(F.pad(x, (0, 64))) * torch.fft.rfft(F.pad(y, (64, 0))))[..., 64:],
        [T, T],
    ),
    "frames": (of_real(spectrum), [(2, 128)]),
    "frames as they are": (of_real(lambda x: torch.stft(x, 32, 8, 20, center=False, onesided=False, normalized=True,
                                                        window=HANN[:20], return_complex=True)), [(2, 128)]),
    "frames and back": (lambda x: torch.istft(spectrum(x) * 0.5, 32, 8, window=HANN, length=128), [(2, 128)]),
    "frames and back to their end": (
        lambda x: torch.istft(torch.polar(spectrum(x).abs(), spectrum(x).angle()), 32, 8, window=HANN), [(1, 128)],
    ),
    "overlapping frames": (
        lambda x: (F.fold(x, (1, 20), (1, 8), stride=(1, 4)), F.fold(x[:, :6], (1, 12), (1, 6), stride=(1, 2))),
        [(2, 8, 4)],
    ),
    "overlapping patches": (
        lambda x: F.fold(F.unfold(x, 3, stride=2, padding=1), (6, 8), 3, stride=2, padding=1), [(1, 2, 6, 8)],
    ),
}  # fmt: skip
COMPLEX: dict[str, Any] = {
    "arithmetic": lambda z, w: (z * w + z / (w + 2) - 3 * z, 2 - z, z * (1 + 2j), z.real * w, torch.sub(z, w, alpha=2)),
    "magnitude and angle": lambda z, w: (z.abs(), (z * w).angle(), z.abs().square(), torch.polar(z.abs(), w.imag)),
    "conjugates": lambda z, w: (z.conj() * w, z @ w.mH, (z * z.conj()).real, z.conj().imag * 2, w.conj()[0].imag.sin()),
    "functions": lambda z, w: (
        z.exp(), (z + 3).log(), z.sqrt(), z**2, z**0.5, 1 / (w + 3), torch.sgn(z), -z, z.square(),
    ),
    "moved": lambda z, w: (
        torch.cat([z, w], 1), F.pad(torch.stack([z, w], 1), (1, 2)), z.flip(1).roll(2, 2),
        z.permute(2, 0, 1).reshape(7, 10), torch.where(z.real > 0, z, w), z[:, [0, 2]], z.transpose(1, 2).contiguous(),
        z.clone(), z[:, :1].expand(2, 5, 7) + w,
    ),
    "sums": lambda z, w: (z.sum(1), z.mean((1, 2)), torch.einsum("bcf,bcf->bf", z, w.conj()), z.cumsum(1)),
    "products": lambda z, w: (
        z @ w.transpose(1, 2), F.linear(z, WEIGHT), F.conv1d(z, KERNEL), z.real.to(torch.cfloat) * w,
    ),
    "in place": put,
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    function, shapes = TRANSFORMS[name]
    assert worst(function, shapes, 2) < 5e-6


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_values(name: str) -> None:
    function = COMPLEX[name]
    assert worst(lambda a, b, c, d: flat(function(torch.complex(a, b), torch.complex(c, d))), [S] * 4) < 1e-5


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (16, 32)])
def test_every_vector_width(lanes: int, registers: int) -> None:
    assert worst(TRANSFORMS["frames and back"][0], [(2, 128)], 1, machine=of_width(lanes, registers)) < 5e-6


class Masked(nn.Module):
    """Frames by a mask of magnitudes, and back: what an enhancer makes of a block by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gains = nn.Linear(17, 17)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stft(x, 32, 8, window=self.window, return_complex=True)
        mask = torch.sigmoid(self.gains(torch.log1p(z.abs()).transpose(1, 2))).transpose(1, 2)
        return torch.istft(z * mask, 32, 8, window=self.window, length=x.shape[-1])


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_scripted_and_a_traced_mask_of_frames(batch: int) -> None:
    torch.manual_seed(4)
    module = Masked().eval()
    forms = [torch.jit.script(module)]
    if batch == 3:
        forms.append(torch.jit.trace(module, torch.randn(batch, 128)))
    for form in forms:
        assert worst(form, [(batch, 128)], 2) < 1e-5
