"""Slow LRP on explicit matrices, one sample at a time, in relevance form; shares no code with ours.

Every linear layer is spelt out as a matrix with one row an output unit, built by loops over
positions. A network is a list of steps; relevance is handed from step to step as the papers write
it: Bach et al. (2015), Montavon et al. (2017, 2019), Lapuschkin et al. (2019), Andéol et al.
(2021).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int, ...]


def positions(shape: Shape) -> list[Shape]:
    """All index tuples of a shape, last axis fastest."""
    return list(itertools.product(*(range(size) for size in shape)))


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def windows(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape
) -> tuple[Shape, list[list[tuple[Shape, Shape]]]]:
    """Output size, and for each output position its pairs (kernel offset, input position)."""
    out = tuple(
        output_size(*numbers)
        for numbers in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    found = []
    for place in positions(out):
        pairs = []
        for offset in positions(kernel):
            at = tuple(
                p * s - pad + o * d
                for p, s, pad, o, d in zip(place, stride, padding, offset, dilation, strict=True)
            )
            if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                pairs.append((offset, at))
        found.append(pairs)
    return out, found


def convolution_matrix(
    weight: Array, shape: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> tuple[Array, Array, Shape]:
    """Matrix of a convolution on (C, *size), its connections, and its output shape."""
    channels, *size = shape
    features, group_channels = weight.shape[:2]
    out, found = windows(tuple(size), weight.shape[2:], stride, padding, dilation)
    units = {place: index for index, place in enumerate(positions(shape))}
    matrix = np.zeros((features * len(found), len(units)))
    connected = np.zeros_like(matrix)
    for feature in range(features):
        first = feature // (features // groups) * (channels // groups)
        for place, pairs in enumerate(found):
            row = feature * len(found) + place
            for channel in range(group_channels):
                for offset, at in pairs:
                    column = units[(first + channel, *at)]
                    matrix[row, column] += weight[(feature, channel, *offset)]
                    connected[row, column] = 1
    return matrix, connected, (features, *out)


def pool_windows(
    shape: Shape, kernel: Shape, stride: Shape, padding: Shape
) -> tuple[list[list[int]], Shape]:
    """For each pooled unit the units of (C, *size) that it looks at."""
    channels, *size = shape
    out, found = windows(tuple(size), kernel, stride, padding, (1,) * len(kernel))
    units = {place: index for index, place in enumerate(positions(shape))}
    looked = [
        [units[(channel, *at)] for _, at in pairs] for channel in range(channels) for pairs in found
    ]
    return looked, (channels, *out)


def average_matrix(looked: list[list[int]], units: int) -> Array:
    matrix = np.zeros((len(looked), units))
    for row, members in enumerate(looked):
        matrix[row, members] = 1 / len(members)
    return matrix


@dataclass
class Linear:
    """z = matrix a + bias under a rule."""

    matrix: Array
    bias: Array
    rule: str = "epsilon"
    epsilon: float = 1e-6
    connected: Array | None = None
    alpha: float = 2.0
    gamma: float = 0.25
    low: float = -4.0
    high: float = 6.0

    def forward(self, a: Array) -> Array:
        self.a = a
        self.z = self.matrix @ a + self.bias
        return self.z

    def backward(self, relevance: Array) -> Array:
        result = np.zeros_like(self.a)
        for row in range(len(self.z)):
            result += (
                self.share(self.matrix[row], self.bias[row], self.z[row], row) * relevance[row]
            )
        return result

    def share(self, w: Array, b: float, z: float, row: int) -> Array:
        """What each input gets of one unit of relevance of output ``row``."""
        a = self.a
        up, down = np.maximum(a * w, 0), np.minimum(a * w, 0)
        up_bias, down_bias = max(b, 0.0), min(b, 0.0)
        if self.rule == "epsilon":
            return a * w / self.stable(z)
        if self.rule == "zplus":
            return up / self.stable(up.sum() + up_bias)
        if self.rule == "alphabeta":
            beta = self.alpha - 1
            return self.alpha * up / self.stable(up.sum() + up_bias) - beta * down / self.stable(
                down.sum() + down_bias
            )
        if self.rule == "gamma":
            if z > 0:
                part = a * w + self.gamma * up
                return part / self.stable(part.sum() + b + self.gamma * up_bias)
            if z < 0:
                part = a * w + self.gamma * down
                return part / self.stable(part.sum() + b + self.gamma * down_bias)
            return np.zeros_like(a)
        if self.rule == "zbox":
            part = a * w - self.low * np.maximum(w, 0) - self.high * np.minimum(w, 0)
            assert self.connected is not None
            return self.connected[row] * part / self.stable((self.connected[row] * part).sum())
        if self.rule == "wsquare":
            return w**2 / self.stable((w**2).sum() + b**2)
        assert self.rule == "flat"
        assert self.connected is not None
        return self.connected[row] / self.stable(self.connected[row].sum())

    def stable(self, z: float) -> float:
        return z + self.epsilon if z >= 0 else z - self.epsilon


@dataclass
class Rectifier:
    """ReLU, or leaky with a slope; passes relevance."""

    slope: float = 0.0

    def forward(self, a: Array) -> Array:
        self.dead = (a <= 0) & (self.slope == 0)
        return np.where(a > 0, a, self.slope * a)

    def backward(self, relevance: Array) -> Array:
        return np.where(self.dead, 0, relevance)


@dataclass
class Mask:
    """Dropout's factors; passes relevance, of which a dropped unit has none."""

    factors: Array

    def forward(self, a: Array) -> Array:
        return a * self.factors

    def backward(self, relevance: Array) -> Array:
        return relevance


@dataclass
class Largest:
    """Max-pool: the winner takes all."""

    looked: list[list[int]]

    def forward(self, a: Array) -> Array:
        self.units = len(a)
        self.winners = [members[int(np.argmax(a[members]))] for members in self.looked]
        return a[self.winners]

    def backward(self, relevance: Array) -> Array:
        result = np.zeros(self.units)
        for winner, value in zip(self.winners, relevance, strict=True):
            result[winner] += value
        return result


@dataclass
class Sum:
    """Branches added up; each gets relevance in proportion to what it contributes."""

    branches: list[list["Step"]]

    def forward(self, a: Array) -> Array:
        self.parts = [forward(branch, a) for branch in self.branches]
        return np.sum(self.parts, axis=0)

    def backward(self, relevance: Array) -> Array:
        total = np.sum(self.parts, axis=0)
        ratio = np.divide(relevance, total, out=np.zeros_like(total), where=total != 0)
        return np.sum(
            [
                backward(branch, part * ratio)
                for branch, part in zip(self.branches, self.parts, strict=True)
            ],
            axis=0,
        )


@dataclass
class Concatenation:
    """Branches side by side, along the channels."""

    branches: list[list["Step"]]

    def forward(self, a: Array) -> Array:
        parts = [forward(branch, a) for branch in self.branches]
        self.ends = np.cumsum([len(part) for part in parts])[:-1]
        return np.concatenate(parts)

    def backward(self, relevance: Array) -> Array:
        pieces = np.split(relevance, self.ends)
        return np.sum(
            [backward(branch, piece) for branch, piece in zip(self.branches, pieces, strict=True)],
            axis=0,
        )


Step = Linear | Rectifier | Mask | Largest | Sum | Concatenation


def forward(steps: Sequence[Step], a: Array) -> Array:
    for step in steps:
        a = step.forward(a)
    return a


def backward(steps: Sequence[Step], relevance: Array) -> Array:
    for step in reversed(steps):
        relevance = step.backward(relevance)
    return relevance


def explain(
    steps: Sequence[Step], image: Array, coefficients: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Logits and relevance of one flattened image."""
    logits = forward(steps, image)
    return logits, backward(steps, coefficients(logits) * logits)
