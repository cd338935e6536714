"""Selective search: boxes where an object may be, whatever its class.

An image is segmented, and its regions are joined one by one, always the two neighbors that are most
alike; each region on the way gives a box.

On the test part of `scenes`, 48x48 pixels, 60 proposals hold 0.964 of the digits at an overlap of
0.5, and 100 hold 0.985 (at 0.7 0.84 and 0.89); an image takes some nine milliseconds.

Source: Uijlings et al. 2013, https://doi.org/10.1007/s11263-013-0620-5, sections 3 and 4 (its fast
        version); Felzenszwalb and Huttenlocher 2004,
        https://doi.org/10.1023/B:VISI.0000022288.19776.77, algorithm 1.
Differs: an image of less than 128 pixels a side is not blurred; gray images have one color space.
"""

import sys

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

COLOR_BINS, TEXTURE_BINS, ORIENTATIONS = 25, 10, 8  # section 3.2
SCALES = (50.0, 100.0)  # the constant `k` of the segmentation; section 4.1
SIMILARITIES = ((1, 1, 1, 1), (0, 1, 1, 1))  # of color, texture, size and fill
BLUR, BLURRED = 0.8, 128  # deviation in pixels; sides of the images that are blurred
CHUNKS = 8  # parts of the edges, before each of which those that are settled are left out


def proposals(image, count) -> np.ndarray:
    """The boxes that selective search finds.

    Args:
        image: `(H, W, C)`, uint8 or float in [0, 1].
        count: How many there is room for, `R`.

    Returns:
        float32 `(R, 4)`, `ymin xmin ymax xmax` in [0, 1], no two equal, the likeliest first; zeros
        where there are fewer.
    """
    image = np.asarray(image)
    image = image * (1.0 if image.dtype == np.uint8 else 255.0)  # float64
    height, width, channels = image.shape
    spaces = (hsv(image), lab(image)) if channels == 3 else (image,)
    random, ranks, boxes = np.random.default_rng(0), [], []
    for space in spaces:
        for scale in SCALES:
            label = segment(space, scale, min(scale, height * width / 200))
            regions = Regions(space, label)
            for weights in SIMILARITIES:
                boxes.append(regions.grouped(weights))  # the whole image first
                ranks.append(random.random(len(boxes[-1])) * np.arange(1, len(boxes[-1]) + 1))
    boxes = np.concatenate(boxes)[np.argsort(np.concatenate(ranks), kind="stable")]
    first = np.sort(np.unique(boxes, axis=0, return_index=True)[1])[:count]
    result = np.zeros((count, 4), np.float32)
    result[: len(first)] = boxes[first] / np.array([height, width, height, width])
    return result


def of_images(images, count) -> np.ndarray:
    """`proposals` of images `(N, H, W, C)`: float32 `(N, R, 4)`."""
    return np.stack([proposals(image, count) for image in images])


def segment(image, scale, smallest=1) -> np.ndarray:
    """Regions within which neighboring pixels differ little.

    Args:
        image: float `(H, W, C)` from 0 to 255.
        scale: `k`: the higher, the larger regions are.
        smallest: Pixels of the smallest region.

    Returns:
        int `(H, W)`, the regions' numbers from 0 on.
    """
    height, width, _ = image.shape
    if min(height, width) >= BLURRED:
        image = blurred(image)
    a, b = neighbors(height, width)
    pixels = image.reshape(height * width, -1)
    weight = np.sqrt(np.square(pixels[a] - pixels[b]).sum(-1))
    order = np.argsort(weight, kind="stable")
    a, b, weight = a[order], b[order], weight[order]
    # What does not differ is joined whatever the scale
    same = int(np.searchsorted(weight, 0, "right"))
    graph = coo_matrix((np.ones(same), (a[:same], b[:same])), (len(pixels), len(pixels)))
    label = start = connected_components(graph, directed=False)[1]
    size = np.bincount(start)
    limit = (scale / size).tolist()  # Int(C) + k / |C|
    parent, size = list(range(len(size))), size.tolist()

    def join(i, j, weights, below):
        """Regions `i` and `j` of edges of rising weights that are alike, or of a size below."""
        for x, y, value in zip(i.tolist(), j.tolist(), weights.tolist(), strict=True):
            while parent[x] != x:
                x = parent[x]
            while parent[y] != y:
                y = parent[y]
            alike = value <= limit[x] and value <= limit[y]
            if x != y and (min(size[x], size[y]) < below if below else alike):
                if size[x] < size[y]:
                    x, y = y, x
                parent[y] = x
                size[x] += size[y]
                limit[x] = value + scale / size[x]

    # A region whose limit is below the first weight that is left never grows again
    for part in np.array_split(np.arange(same, len(order)), CHUNKS):
        i, j, limits = label[a[part]], label[b[part]], np.array(limit)
        left = (i != j) & (weight[part[:1]] <= np.minimum(limits[i], limits[j]))
        join(i[left], j[left], weight[part][left], 0)
        label = _roots(parent)[start]
    left = label[a] != label[b]
    join(label[a[left]], label[b[left]], weight[left], smallest)
    label = np.unique(_roots(parent)[start], return_inverse=True)[1]
    return label.reshape(height, width)


def _roots(parent):
    """Of each region the one that it is a part of in the end."""
    parent = np.array(parent)
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def neighbors(height, width):
    """The pairs of pixels that touch, at corners too: two int arrays of their numbers."""
    at = np.arange(height * width).reshape(height, width)
    pairs = (
        (at[:, :-1], at[:, 1:]),
        (at[:-1], at[1:]),
        (at[:-1, :-1], at[1:, 1:]),
        (at[:-1, 1:], at[1:, :-1]),
    )
    return (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))


class Regions:
    """What the regions of an image look like, and where they are.

    Args:
        image: float `(H, W, C)` from 0 to 255.
        label: int `(H, W)`, the regions' numbers from 0 to `R - 1`.
    """

    def __init__(self, image, label):
        height, width, channels = image.shape
        count = label.max() + 1
        self.pixels, self.size = label.size, np.bincount(label.ravel()).astype(np.float64)
        bins = np.minimum(image * (COLOR_BINS / 256), COLOR_BINS - 1)
        self.color = _histograms(label, bins, COLOR_BINS)
        gradient = np.stack([_derivative(image, axis) for axis in (0, 1)])
        angle = np.arange(ORIENTATIONS) * (2 * np.pi / ORIENTATIONS)
        turned = np.tensordot(np.stack([np.sin(angle), np.cos(angle)], -1), gradient, 1)
        turned = np.moveaxis(np.maximum(turned, 0), 0, -1).reshape(height, width, -1)
        bins = np.minimum(turned * (TEXTURE_BINS / 128), TEXTURE_BINS - 1)
        self.texture = _histograms(label, bins, TEXTURE_BINS)
        y, x = np.indices(label.shape)
        low, high = np.full((count, 2), label.size), np.zeros((count, 2), int)
        for axis, place in enumerate((y, x)):
            np.minimum.at(low[:, axis], label.ravel(), place.ravel())
            np.maximum.at(high[:, axis], label.ravel(), place.ravel() + 1)
        self.boxes = np.concatenate([low, high], -1)  # (R, 4)
        self.touching = np.zeros((count, count), bool)
        a, b = neighbors(height, width)
        a, b = label.ravel()[a], label.ravel()[b]
        self.touching[a, b] = self.touching[b, a] = True
        np.fill_diagonal(self.touching, False)

    def grouped(self, weights) -> np.ndarray:
        """Boxes of all regions, from the whole image down to the first ones.

        Args:
            weights: Of the similarities of color, texture, size and fill.

        Returns:
            int `(2 R - 1, 4)`.
        """
        of_color, of_texture, of_size, of_fill = weights
        color, texture, size = self.color.copy(), self.texture.copy(), self.size.copy()
        boxes, touching = self.boxes.copy(), self.touching.copy()
        count, result = len(size), [self.boxes]

        def alike(i, j):
            value = of_color * np.minimum(color[i], color[j]).sum(-1)
            value += of_texture * np.minimum(texture[i], texture[j]).sum(-1)
            both = (size[i] + size[j]) / self.pixels
            low = np.minimum(boxes[i, :2], boxes[j, :2])
            high = np.maximum(boxes[i, 2:], boxes[j, 2:])
            hull = (high - low).prod(-1) / self.pixels
            return value + of_size * (1 - both) + of_fill * (1 - hull + both)

        similarity = np.full((count, count), -1.0)
        i, j = np.nonzero(touching)
        similarity[i, j] = alike(i, j)
        for _ in range(count - 1):
            i, j = divmod(int(similarity.argmax()), count)  # j becomes a part of i
            a, b = size[i], size[j]
            color[i] = (a * color[i] + b * color[j]) / (a + b)
            texture[i] = (a * texture[i] + b * texture[j]) / (a + b)
            size[i] = a + b
            boxes[i, :2] = np.minimum(boxes[i, :2], boxes[j, :2])
            boxes[i, 2:] = np.maximum(boxes[i, 2:], boxes[j, 2:])
            result.append(boxes[i : i + 1].copy())
            touching[i] |= touching[j]
            touching[i, [i, j]] = False
            touching[:, i], touching[j], touching[:, j] = touching[i], False, False
            similarity[[i, j]] = similarity[:, [i, j]] = -1
            near = np.flatnonzero(touching[i])
            similarity[i, near] = similarity[near, i] = alike(i, near)
        return np.concatenate(result)[::-1]


def _histograms(label, bins, count):
    """float `(R, D count)` of values `(H, W, D)` from 0 to below `count`; each row sums to 1."""
    regions, depth = label.max() + 1, bins.shape[-1]
    at = (label[..., None] * depth + np.arange(depth)) * count + bins.astype(int)
    hist = np.bincount(at.ravel(), minlength=regions * depth * count).astype(np.float64)
    hist = hist.reshape(regions, -1)
    return hist / hist.sum(-1, keepdims=True)


def _kernel(deviation):
    reach = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (reach / deviation) ** 2)
    return reach, kernel / kernel.sum()


def _along(image, kernel, axis):
    """The convolution of an image along an axis, its edges going on outside."""
    reach, n = len(kernel) // 2, image.shape[axis]
    wide = np.take(image, np.clip(np.arange(-reach, n + reach), 0, n - 1), axis=axis)
    return sum(
        weight * (wide[i : i + n] if axis == 0 else wide[:, i : i + n])
        for i, weight in enumerate(kernel)
    )


def blurred(image, deviation=BLUR):
    """An image `(H, W, C)` convolved with a Gaussian."""
    kernel = _kernel(deviation)[1]
    return _along(_along(image, kernel, 0), kernel, 1)


def _derivative(image, axis):
    """The derivative of an image along an axis, of a Gaussian of deviation 1."""
    reach, kernel = _kernel(1.0)
    return _along(_along(image, kernel, 1 - axis), reach * kernel, axis)


def hsv(image):
    """Hue, saturation and value, each from 0 to 255, of a color image `(H, W, 3)` likewise."""
    high, low = image.max(-1), image.min(-1)
    spread = high - low
    r, g, b = np.moveaxis(image, -1, 0)
    safe = np.where(spread > 0, spread, 1)
    hue = np.select(
        [spread == 0, high == r, high == g],
        [0.0, (g - b) / safe % 6, (b - r) / safe + 2],
        (r - g) / safe + 4,
    )
    saturation = spread / np.where(high > 0, high, 1)
    return np.stack([hue * (255 / 6), saturation * 255, high], -1)


def lab(image):
    """CIE L*a*b*, each scaled to 0 to 255, of a color image `(H, W, 3)` in sRGB likewise."""
    x = image / 255
    x = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x = x @ np.array(to_xyz).T / [0.9505, 1.0, 1.089]  # of the white point D65
    x = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    x, y, z = np.moveaxis(x, -1, 0)
    return np.clip(
        np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], -1), 0, 255
    )


if __name__ == "__main__":  # images.npy proposals.npy count
    np.save(sys.argv[2], of_images(np.load(sys.argv[1]), int(sys.argv[3])))
