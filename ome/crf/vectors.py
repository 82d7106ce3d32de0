# Parameters of an intrinsic tell numba the number of its arguments, even if its body does not use them.
# ruff: noqa: ARG001
"""Vectors of eight float32 inside numba kernels.

Numba vectorises loops itself, but in short loops its run-time checks take longer than the arithmetic. These
intrinsics need no checks; LLVM maps them to the registers of the machine. In a kernel, `load8` reads a vector
from a flat float32 array, the arithmetic works on vectors, and `store8` writes one.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)
CONTRACT = ("contract", "nsz")

Handle: TypeAlias = Any  # numba's contexts, types and signatures, LLVM's builders and values
Typed: TypeAlias = tuple[Handle, Callable[[Handle, Handle, Handle, Handle], Handle]]


class Float8(types.Type):
    """Numba's type of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Float8")


@register_model(Float8)
class Float8Model(models.PrimitiveModel):
    """Float8 is an LLVM vector."""

    def __init__(self, manager: Handle, numba_type: Handle) -> None:
        super().__init__(manager, numba_type, VECTOR)  # type: ignore[no-untyped-call]


float8 = Float8()


def vector_intrinsic(define: Callable[..., Typed]) -> Callable[..., Handle]:
    """Registers an intrinsic; kernels call it without the typing context, its first parameter."""
    registered: Callable[..., Handle] = intrinsic(define)
    return registered


def element_pointer(
    context: Handle, builder: Handle, array_type: Handle, array: Handle, start: Handle
) -> Handle:
    """Returns the address of the eight floats from `start` on, without a bounds check."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), VECTOR.as_pointer())


def constant(value: float) -> ir.Constant:
    """Returns a vector with eight times the same value."""
    return ir.Constant(VECTOR, [value] * LANES)


def broadcast(builder: Handle, scalar: Handle) -> Handle:
    """Returns a vector with eight times a float32 that is known at run time."""
    single = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, cgutils.int32_t(0))
    return builder.shuffle_vector(single, single, ir.Constant(INTEGERS, [0] * LANES))


@vector_intrinsic
def load8(_: Handle, array: Handle, start: Handle) -> Typed:
    """Returns array[start : start + 8] of a contiguous float32 array."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        pointer = element_pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return float8(array, types.intp), codegen


@vector_intrinsic
def store8(_: Handle, array: Handle, start: Handle, vector: Handle) -> Typed:
    """Writes a vector to array[start : start + 8]."""

    def codegen(context: Handle, builder: Handle, signature: Handle, arguments: Handle) -> Handle:
        array, start, vector = arguments
        pointer = element_pointer(context, builder, signature.args[0], array, start)
        builder.store(vector, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), codegen


@vector_intrinsic
def fill8(_: Handle, scalar: Handle) -> Typed:
    """Returns a vector with eight times the same float32."""

    def codegen(_context: Handle, builder: Handle, _signature: Handle, arguments: Handle) -> Handle:
        return broadcast(builder, arguments[0])

    return float8(types.float32), codegen


def arithmetic(operation: str) -> Callable[..., Handle]:
    """Returns the intrinsic of an operation on two vectors, by the name of its method of LLVM's builder."""

    def define(_: Handle, left: Handle, right: Handle) -> Typed:
        def codegen(_context: Handle, builder: Handle, _signature: Handle, arguments: Handle) -> Handle:
            return getattr(builder, operation)(*arguments, flags=CONTRACT)

        return float8(float8, float8), codegen

    return vector_intrinsic(define)


add8, subtract8, multiply8 = map(arithmetic, ("fadd", "fsub", "fmul"))


@vector_intrinsic
def reciprocal8(_: Handle, vector: Handle) -> Typed:
    """Returns 1 / vector."""

    def codegen(_context: Handle, builder: Handle, _signature: Handle, arguments: Handle) -> Handle:
        return builder.fdiv(constant(1.0), arguments[0])

    return float8(float8), codegen


@vector_intrinsic
def sum8(_: Handle, vector: Handle) -> Typed:
    """Returns the float32 sum of the eight elements, added from first to last."""

    def codegen(_context: Handle, builder: Handle, _signature: Handle, arguments: Handle) -> Handle:
        elements = [builder.extract_element(arguments[0], cgutils.int32_t(lane)) for lane in range(LANES)]
        total = elements[0]
        for element in elements[1:]:
            total = builder.fadd(total, element)
        return total

    return types.float32(float8), codegen


@vector_intrinsic
def exp8(_: Handle, exponents: Handle) -> Typed:
    """Returns e to the power of exponents in [-87, 87], with a relative error of at most 5e-6.

    It is 2^n * 2^f: n is written into the exponent bits, and 2^f, |f| <= 1/2, is a Taylor polynomial.
    """
    rounding = 12582912.0  # 1.5 * 2^23: adding it moves the nearest integer into the lowest bits
    taylor = (1.540353e-4, 1.3333558e-3, 9.618129e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0)

    def codegen(_context: Handle, builder: Handle, _signature: Handle, arguments: Handle) -> Handle:
        binary = builder.fmul(arguments[0], constant(1.4426950408889634))
        shifted = builder.fadd(binary, constant(rounding))
        fraction = builder.fsub(binary, builder.fsub(shifted, constant(rounding)))
        power = constant(taylor[0])
        for coefficient in taylor[1:]:
            product = builder.fmul(power, fraction, flags=CONTRACT)
            power = builder.fadd(product, constant(coefficient), flags=CONTRACT)
        bits = builder.shl(builder.bitcast(shifted, INTEGERS), ir.Constant(INTEGERS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, INTEGERS), bits), VECTOR)

    return float8(float8), codegen
