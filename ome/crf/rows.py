# Parameters of an intrinsic tell numba the number of its arguments, even if its body does not use them.
# ruff: noqa: ARG001
"""Reading and updating the rows of a pixel's lattice vertices, as straight-line code.

A pixel has nine vertices: three of the Gaussian lattice and six of the bilateral one. Mean field spends most
of its time on their rows, and with loops most of that would be counting and computing addresses. These
intrinsics are unrolled over the nine vertices and over up to four vectors of eight values. The row of vertex
v is `sums[v * width : (v + 1) * width]`.
"""

from collections.abc import Iterator, Sequence

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from ome.crf.vectors import CONTRACT, LANES, VECTOR, Handle, Typed, broadcast, constant, vector_intrinsic

CORNERS = 9
LINE = 16  # float32 in a cache line
UNROLLED = 4  # vectors of a row in registers at a time
INT64 = ir.IntType(64)
BYTES = ir.IntType(8).as_pointer()
PREFETCH = ir.FunctionType(ir.VoidType(), [BYTES] + [ir.IntType(32)] * 3)
VERTICES, FLOATS = types.Array(types.int32, 1, "C"), types.Array(types.float32, 1, "C")


def integer(value: int) -> ir.Constant:
    """Returns a 64-bit constant."""
    return ir.Constant(INT64, value)


def part(builder: Handle, row: Handle, vector: int) -> Handle:
    """Returns the address of the vector (eight floats) number `vector` of `row`."""
    return builder.bitcast(builder.gep(row, [integer(LANES * vector)]), VECTOR.as_pointer())


def weighted_rows(builder: Handle, pointers: Sequence[Handle], point: Handle, width: Handle) -> list[Handle]:
    """Returns the weight and the row of each of a point's vertices.

    Args:
        builder: LLVM's builder.
        pointers: Pointers to (N * 9,) int32 vertices, (N * 9,) float32 weights and the float32 sums.
        point: Index of the point.
        width: Width of a row.
    """
    vertices, weights, sums = pointers
    first = builder.mul(point, integer(CORNERS))
    rows = []
    for corner in range(CORNERS):
        here = builder.add(first, integer(corner))
        vertex = builder.sext(builder.load(builder.gep(vertices, [here])), INT64)
        row = builder.gep(sums, [builder.mul(vertex, width)])
        rows.append((builder.load(builder.gep(weights, [here])), row))
    return rows


def unrolled(builder: Handle, width: Handle) -> Iterator[tuple[Handle, int]]:
    """Builds a loop over chunks of a row; for its body, yields the start of a chunk and its vectors."""
    chunk = integer(LANES * UNROLLED)
    rest = builder.urem(width, chunk)
    whole = builder.sub(width, rest)
    with cgutils.for_range_slice(builder, integer(0), whole, chunk, INT64) as (start, _):
        yield start, UNROLLED
    for vectors in range(1, UNROLLED):
        with builder.if_then(builder.icmp_signed("==", rest, integer(LANES * vectors))):
            yield whole, vectors


def pointers_of(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> list[Handle]:
    """Returns pointers to the data of those arguments that are arrays."""
    return [
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(signature.args, arguments, strict=True)
        if isinstance(kind, types.Array)
    ]


def prefetch_line(builder: Handle, address: Handle) -> None:
    """Prefetches the cache line of an address, which may be invalid."""
    name = "llvm.prefetch.p0i8"
    function = cgutils.get_or_insert_function(builder.module, PREFETCH, name)  # type: ignore[no-untyped-call]
    # For reading; keep in all caches; data, not instructions.
    hints = [cgutils.int32_t(0), cgutils.int32_t(3), cgutils.int32_t(1)]
    builder.call(function, [builder.bitcast(address, BYTES), *hints])


@vector_intrinsic
def gather(
    _: Handle, vertices: Handle, weights: Handle, point: Handle, sums: Handle, width: Handle, messages: Handle
) -> Typed:
    """Writes the weighted sum of the rows of a point's vertices to (width,) `messages`."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        *lattice, messages = pointers_of(context, builder, signature, arguments)
        rows = weighted_rows(builder, lattice, arguments[2], arguments[4])
        factors = [broadcast(builder, weight) for weight, _ in rows]
        for start, vectors in unrolled(builder, arguments[4]):
            totals = [constant(0.0)] * vectors
            for factor, (_, row) in zip(factors, rows, strict=True):
                here = builder.gep(row, [start])
                for vector in range(vectors):
                    value = builder.load(part(builder, here, vector), align=4)
                    product = builder.fmul(factor, value, flags=CONTRACT)
                    totals[vector] = builder.fadd(totals[vector], product, flags=CONTRACT)
            for vector, total in enumerate(totals):
                builder.store(total, part(builder, builder.gep(messages, [start]), vector), align=4)
        return context.get_dummy_value()

    return types.void(VERTICES, FLOATS, types.intp, FLOATS, types.intp, FLOATS), codegen


@vector_intrinsic
def scatter(
    _: Handle, vertices: Handle, weights: Handle, point: Handle, sums: Handle, width: Handle, values: Handle
) -> Typed:
    """Adds (width,) `values`, times the vertices' weights, to the rows of a point's vertices."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        *lattice, values = pointers_of(context, builder, signature, arguments)
        rows = weighted_rows(builder, lattice, arguments[2], arguments[4])
        factors = [broadcast(builder, weight) for weight, _ in rows]
        for start, vectors in unrolled(builder, arguments[4]):
            source = builder.gep(values, [start])
            loaded = [builder.load(part(builder, source, vector), align=4) for vector in range(vectors)]
            for factor, (_, row) in zip(factors, rows, strict=True):
                here = builder.gep(row, [start])
                for vector in range(vectors):
                    product = builder.fmul(factor, loaded[vector], flags=CONTRACT)
                    place = part(builder, here, vector)
                    total = builder.fadd(builder.load(place, align=4), product, flags=CONTRACT)
                    builder.store(total, place, align=4)
        return context.get_dummy_value()

    return types.void(VERTICES, FLOATS, types.intp, FLOATS, types.intp, FLOATS), codegen


@vector_intrinsic
def prefetch_rows(
    _: Handle, vertices: Handle, weights: Handle, point: Handle, sums: Handle, width: Handle
) -> Typed:
    """Prefetches the rows of a point's vertices."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        lattice = pointers_of(context, builder, signature, arguments)
        rows = weighted_rows(builder, lattice, arguments[2], arguments[4])
        for start, vectors in unrolled(builder, arguments[4]):
            for _, row in rows:
                for place in range(0, LANES * vectors, LINE):
                    prefetch_line(builder, builder.gep(row, [builder.add(start, integer(place))]))
        return context.get_dummy_value()

    return types.void(VERTICES, FLOATS, types.intp, FLOATS, types.intp), codegen
