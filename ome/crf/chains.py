# Parameters of an intrinsic tell numba the number of its arguments, even if its body does not use them.
# ruff: noqa: ARG001
"""The blur of lattice vertices along chains, as straight-line code.

A chain is a maximal sequence of existing vertices that follow one another in one blur direction. One array
contains all chains, one after another; the last vertex v of each is stored as ~v. Neither the end of a chain
nor the width of a row needs a branch, which the processor could predict wrongly. Two rows are in registers.
"""

from collections.abc import Sequence

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from ome.crf.rows import FLOATS, INT64, LINE, VERTICES, integer, part, pointers_of, prefetch_line
from ome.crf.vectors import CONTRACT, LANES, Handle, Typed, broadcast, constant, vector_intrinsic

AHEAD = 16  # elements of the chains by which the blur prefetches
WIDEST = 16  # maximum number of vectors of a row that are blurred at a time


@vector_intrinsic
def blur_chains(
    _: Handle, chains: Handle, count: Handle, sums: Handle, width: Handle, start: Handle, vectors: Handle
) -> Typed:
    """Blurs `vectors` <= `WIDEST` vectors of every row from `start` on, in place; chains have `count` > 0."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        _, count, _, width, start, vectors = arguments
        pointers = pointers_of(context, builder, signature, arguments)
        for number in range(1, WIDEST + 1):
            with builder.if_then(builder.icmp_signed("==", vectors, integer(number))):
                walk(builder, pointers, count, (width, start), number)
        return context.get_dummy_value()

    return types.void(VERTICES, types.intp, FLOATS, types.intp, types.intp, types.intp), codegen


def variable(builder: Handle, value: Handle) -> Handle:
    """Returns the address of a local variable, which LLVM stores in a register."""
    return cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]


def walk(
    builder: Handle, pointers: Sequence[Handle], count: Handle, columns: tuple[Handle, Handle], vectors: int
) -> None:
    """Builds the loop over the chains for `vectors` vectors of a row; `columns` are width and start."""
    chains, sums = pointers
    last = builder.sub(count, integer(1))

    def code_at(place: Handle) -> Handle:
        inside = builder.select(builder.icmp_signed("<", place, last), place, last)
        return builder.sext(builder.load(builder.gep(chains, [inside])), INT64)

    def row_of(code: Handle) -> Handle:
        vertex = builder.xor(code, builder.ashr(code, integer(63)))
        return builder.gep(sums, [builder.add(builder.mul(vertex, columns[0]), columns[1])])

    code = variable(builder, code_at(integer(0)))
    first = row_of(builder.load(code))
    values = [
        variable(builder, builder.load(part(builder, first, vector), align=4)) for vector in range(vectors)
    ]
    halves = [variable(builder, constant(0.0)) for _ in values]  # half of the row before
    with cgutils.for_range(builder, count, intp=INT64) as loop:
        ahead = row_of(code_at(builder.add(loop.index, integer(AHEAD))))
        for place in range(0, LANES * vectors, LINE):
            prefetch_line(builder, builder.gep(ahead, [integer(place)]))
        now = builder.load(code)
        continues = builder.icmp_signed(">=", now, integer(0))
        tap = broadcast(builder, builder.select(continues, ir.FloatType()(0.5), ir.FloatType()(0.0)))
        builder.store(code_at(builder.add(loop.index, integer(1))), code)
        here, following = row_of(now), row_of(builder.load(code))
        for vector, (current, half) in enumerate(zip(values, halves, strict=True)):
            value, source = builder.load(current), part(builder, following, vector)
            after = builder.fmul(tap, builder.load(source, align=4), flags=CONTRACT)
            around = builder.fadd(builder.load(half), after, flags=CONTRACT)
            total = builder.fadd(value, around, flags=CONTRACT)
            builder.store(total, part(builder, here, vector), align=4)
            builder.store(builder.fmul(tap, value), half)
            # Read after the write: the next chain may begin with the vertex that was just written.
            builder.store(builder.load(source, align=4), current)
