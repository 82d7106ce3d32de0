# Numba reads the number of an intrinsic's arguments from parameters that its body has no use for.
# ruff: noqa: ARG001
"""The blur of lattice vertices along chains, as straight code.

A chain is a maximal sequence of existing vertices that follow one another in one blur direction. All chains
lie one after another in one array, and the last vertex v of each is written as ~v: neither the end of a chain
nor the width of a row needs a branch that the processor could guess wrong. Two rows stay in registers.
"""

from collections.abc import Sequence

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from ome.crf.rows import FLOATS, INT64, LINE, VERTICES, integer, part, pointers_of, prefetch_line
from ome.crf.vectors import CONTRACT, LANES, Handle, Typed, broadcast, constant, vector_intrinsic

AHEAD = 16  # chain places by which the blur prefetches
WIDEST = 16  # vectors of a row that are blurred at a time


@vector_intrinsic
def blur_chains(
    _: Handle, chains: Handle, count: Handle, sums: Handle, width: Handle, start: Handle, vectors: Handle
) -> Typed:
    """Blurs up to `WIDEST` vectors of every row from `start` on along `count` > 0 chain places, in place."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        _, count, _, width, start, vectors = arguments
        pointers = pointers_of(context, builder, signature, arguments)
        for number in range(1, WIDEST + 1):
            with builder.if_then(builder.icmp_signed("==", vectors, integer(number))):
                walk(builder, pointers, count, (width, start), number)
        return context.get_dummy_value()

    return types.void(VERTICES, types.intp, FLOATS, types.intp, types.intp, types.intp), codegen


def variable(builder: Handle, value: Handle) -> Handle:
    """Returns the address of a local variable, which LLVM keeps in a register."""
    return cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]


def walk(
    builder: Handle, pointers: Sequence[Handle], count: Handle, columns: tuple[Handle, Handle], vectors: int
) -> None:
    """Builds the loop over chain places for rows of so many vectors; `columns` are width and start."""
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
    halves = [variable(builder, constant(0.0)) for _ in values]  # of the rows before
    with cgutils.for_range(builder, count, intp=INT64) as loop:
        ahead = row_of(code_at(builder.add(loop.index, integer(AHEAD))))
        for place in range(0, LANES * vectors, LINE):
            prefetch_line(builder, builder.gep(ahead, [integer(place)]))
        now = builder.load(code)
        goes_on = builder.icmp_signed(">=", now, integer(0))
        tap = broadcast(builder, builder.select(goes_on, ir.FloatType()(0.5), ir.FloatType()(0.0)))
        builder.store(code_at(builder.add(loop.index, integer(1))), code)
        here, following = row_of(now), row_of(builder.load(code))
        for vector, (kept, half) in enumerate(zip(values, halves, strict=True)):
            value, source = builder.load(kept), part(builder, following, vector)
            behind = builder.fmul(tap, builder.load(source, align=4), flags=CONTRACT)
            around = builder.fadd(builder.load(half), behind, flags=CONTRACT)
            total = builder.fadd(value, around, flags=CONTRACT)
            builder.store(total, part(builder, here, vector), align=4)
            builder.store(builder.fmul(tap, value), half)
            # Read after the write: a chain may begin where the one before, of another direction, ended.
            builder.store(builder.load(source, align=4), kept)
