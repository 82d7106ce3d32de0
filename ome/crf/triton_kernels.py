"""Mean field on permutohedral lattices as GPU kernels in Triton.

An update is one `splat`, one `add_parts`, one `blur` per direction and one `update_pixels`, each for all
pixels of all tiles, all runs and all classes. No addition is atomic, so that results are reproducible.
`TRITON_INTERPRET=1`, set before Triton is imported, runs the kernels on a CPU.

Names of dimensions: N pixels of all tiles, R runs, K classes, V vertices, P parts of the pixels of vertices.
A row has W = R * (K - 1) values, that of run r and class k at r * (K - 1) + k. The message of the last class
is not in it: it is the agreement less the messages of the others, see `ome.crf.mean_field`.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def, type-arg"
# ruff: noqa: ANN001, N803

import triton
import triton.language as tl


@triton.jit
def splat(
    values,  # (N, W) float32
    members,  # int32, the pixels of each vertex, vertex after vertex
    weights,  # float32, the weights of these pixels
    parts,  # (P, 2) int32: first and end in `members` of each part of a vertex
    sums,  # (P, W) float32, written
    num_parts,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Computes the weighted sum of the rows of each part's pixels, in the order of the pixels."""
    part = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)[None, :]
    exists = part < num_parts
    place = tl.load(parts + 2 * part, mask=exists, other=0)
    end = tl.load(parts + 2 * part + 1, mask=exists, other=0)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    for _ in range(tl.max(end - place, 0)):
        live = place < end
        pixel = tl.load(members + place, mask=live, other=0).to(tl.int64)[:, None]
        weight = tl.load(weights + place, mask=live, other=0.0)[:, None]
        inside = live[:, None] & (column < width)
        total += weight * tl.load(values + pixel * width + column, mask=inside, other=0.0)
        place += 1
    row = part.to(tl.int64)[:, None] * width
    tl.store(sums + row + column, total, mask=exists[:, None] & (column < width))


@triton.jit
def add_parts(
    sums,  # (P, W) float32, the rows of divided vertices are written
    divided,  # (D, 3) int32: vertex, first and end of the rows of its other parts
    num_divided,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Adds the sums of the other parts of vertices to those of their first parts, in order."""
    number = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)[None, :]
    exists = number < num_divided
    vertex = tl.load(divided + 3 * number, mask=exists, other=0).to(tl.int64)[:, None]
    place = tl.load(divided + 3 * number + 1, mask=exists, other=0)
    end = tl.load(divided + 3 * number + 2, mask=exists, other=0)
    written = exists[:, None] & (column < width)
    total = tl.load(sums + vertex * width + column, mask=written, other=0.0)
    for _ in range(tl.max(end - place, 0)):
        inside = (place < end)[:, None] & (column < width)
        total += tl.load(sums + place.to(tl.int64)[:, None] * width + column, mask=inside, other=0.0)
        place += 1
    tl.store(sums + vertex * width + column, total, mask=written)


@triton.jit
def blur(
    old,  # (V, W) float32
    new,  # (V, W) float32, written
    neighbours,  # (V - first, 3) int32: vertex, predecessor, successor; the vertex itself if there is none
    first,  # the vertices before this one are not blurred
    num_vertices,
    width,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Convolves the rows of vertices with [1/2, 1, 1/2] along one direction."""
    vertex = first + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)[None, :]
    exists = vertex < num_vertices
    before = tl.load(neighbours + 3 * (vertex - first) + 1, mask=exists, other=0)
    after = tl.load(neighbours + 3 * (vertex - first) + 2, mask=exists, other=0)
    inside = exists[:, None] & (column < width)
    row = vertex.to(tl.int64)[:, None] * width + column
    around = tl.load(
        old + before.to(tl.int64)[:, None] * width + column,
        mask=inside & (before != vertex)[:, None],
        other=0.0,
    )
    around += tl.load(
        old + after.to(tl.int64)[:, None] * width + column,
        mask=inside & (after != vertex)[:, None],
        other=0.0,
    )
    tl.store(new + row, tl.load(old + row, mask=inside, other=0.0) + 0.5 * around, mask=inside)


@triton.jit
def update_pixels(
    gaussian,  # (V, W) float32, blurred sums for the first 3 vertices of a pixel
    bilateral,  # (V, W) float32, blurred sums for the other 6
    vertices,  # (N, 9) int32
    weights,  # (N, 9) float32
    agreement,  # (N,) float32, the message of a class with probability 1 at all pixels
    energy,  # (N, K) float32 log-probabilities
    powers,  # (R, K) float32 factors on them
    values,  # (N, W) float32, written unless LAST
    result,  # LAST: (N, R, K) float32 probabilities, or (N, R) uint8 with WINNERS
    num_pixels,
    runs,
    classes,
    floor,  # lower limit of log-probabilities
    FIRST: tl.constexpr,  # there are no messages yet
    LAST: tl.constexpr,
    WINNERS: tl.constexpr,
    PIXELS: tl.constexpr,
    RUNS: tl.constexpr,
    CLASSES: tl.constexpr,
) -> None:
    """Reads the messages of each pixel from its vertices and computes its class probabilities."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    run = tl.arange(0, RUNS)[None, :, None]
    label = tl.arange(0, CLASSES)[None, None, :]
    exists = pixel < num_pixels
    width = runs * (classes - 1)
    column = run * (classes - 1) + label
    here = exists[:, None, None] & (run < runs)
    carried, inside = here & (label < classes - 1), here & (label < classes)
    pixel_row = pixel.to(tl.int64)[:, None, None]

    unary = tl.load(energy + pixel_row * classes + label, mask=inside, other=0.0)
    factor = tl.load(powers + run * classes + label, mask=(run < runs) & (label < classes), other=1.0)
    total = tl.maximum(unary * factor, floor)
    if not FIRST:
        messages = tl.zeros((PIXELS, RUNS, CLASSES), tl.float32)
        for corner in tl.static_range(9):
            vertex = tl.load(vertices + pixel * 9 + corner, mask=exists, other=0)
            weight = tl.load(weights + pixel * 9 + corner, mask=exists, other=0.0)
            row = vertex.to(tl.int64)[:, None, None] * width + column
            sums = gaussian if corner < 3 else bilateral
            messages += weight[:, None, None] * tl.load(sums + row, mask=carried, other=0.0)
        rest = tl.load(agreement + pixel, mask=exists, other=0.0)[:, None] - tl.sum(messages, 2)
        total += tl.where(label == classes - 1, rest[:, :, None], messages)
    total = tl.where(label < classes, total, -float("inf"))
    total = tl.exp(total - tl.max(total, 2)[:, :, None])
    probability = total / tl.sum(total, 2)[:, :, None]
    if not LAST:
        tl.store(values + pixel_row * width + column, probability, mask=carried)
    elif WINNERS:
        run_row = pixel.to(tl.int64)[:, None] * runs + tl.arange(0, RUNS)[None, :]
        running = exists[:, None] & (tl.arange(0, RUNS)[None, :] < runs)
        tl.store(result + run_row, tl.argmax(probability, 2).to(tl.uint8), mask=running)
    else:
        tl.store(result + (pixel_row * runs + run) * classes + label, probability, mask=inside)
