"""Eight float32 at once inside numba kernels.

Numba vectorises loops by itself, but for short ones it spends more time on asking whether it may than on the
arithmetic. These intrinsics say it outright; LLVM maps them to the registers that the machine has. In a
kernel, `load8` reads from a flat float32 array, the arithmetic works on what it returns, `store8` writes.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)
CONTRACT = ("contract", "nsz")

Codegen = Callable[[Any, Any, Any, Any], Any]
Typed = tuple[Any, Codegen]


class Float8(types.Type):  # type: ignore[misc]
    """Numba's type of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Float8")


@register_model(Float8)
class Float8Model(models.PrimitiveModel):  # type: ignore[misc]
    """Float8 is an LLVM vector."""

    def __init__(self, manager: Any, numba_type: Any) -> None:  # noqa: ANN401
        super().__init__(manager, numba_type, VECTOR)


float8 = Float8()


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, start: Any) -> Any:  # noqa: ANN401
    """Returns the address of eight floats from `start` on; there is no bounds check."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), VECTOR.as_pointer())


def constant(value: float) -> ir.Constant:
    """Returns eight times `value`."""
    return ir.Constant(VECTOR, [value] * LANES)


@intrinsic
def load8(_: Any, array: Any, start: Any) -> Typed:  # noqa: ANN401, ARG001
    """load8(array, start): array[start : start + 8] of a contiguous float32 array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        pointer = element_pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return float8(array, types.intp), codegen


@intrinsic
def store8(_: Any, array: Any, start: Any, vector: Any) -> Typed:  # noqa: ANN401, ARG001
    """store8(array, start, vector): array[start : start + 8] = vector."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        array, start, vector = arguments
        pointer = element_pointer(context, builder, signature.args[0], array, start)
        builder.store(vector, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, float8), codegen


@intrinsic
def fill8(_: Any, scalar: Any) -> Typed:  # noqa: ANN401, ARG001
    """fill8(scalar): eight times a float32."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        vector = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(LANES):
            vector = builder.insert_element(vector, arguments[0], cgutils.int32_t(lane))
        return vector

    return float8(types.float32), codegen


@intrinsic
def add8(_: Any, left: Any, right: Any) -> Typed:  # noqa: ANN401, ARG001
    """add8(left, right): left + right."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.fadd(*arguments, flags=CONTRACT)

    return float8(float8, float8), codegen


@intrinsic
def multiply8(_: Any, left: Any, right: Any) -> Typed:  # noqa: ANN401, ARG001
    """multiply8(left, right): left * right."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.fmul(*arguments, flags=CONTRACT)

    return float8(float8, float8), codegen


@intrinsic
def reciprocal8(_: Any, vector: Any) -> Typed:  # noqa: ANN401, ARG001
    """reciprocal8(vector): 1 / vector."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.fdiv(constant(1.0), arguments[0])

    return float8(float8), codegen


@intrinsic
def sum8(_: Any, vector: Any) -> Typed:  # noqa: ANN401, ARG001
    """sum8(vector): the float32 sum of the eight, from first to last."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        elements = [builder.extract_element(arguments[0], cgutils.int32_t(lane)) for lane in range(LANES)]
        total = elements[0]
        for element in elements[1:]:
            total = builder.fadd(total, element)
        return total

    return types.float32(float8), codegen


@intrinsic
def exp8(_: Any, exponents: Any) -> Typed:  # noqa: ANN401, ARG001
    """exp8(exponents): e to the power of exponents with |.| <= 87, to a relative 5e-6.

    2^n comes from writing n into the exponent bits, 2^f for |f| <= 1/2 from its Taylor polynomial.
    """
    rounding = 12582912.0  # 1.5 * 2^23: adding it moves the nearest integer into the lowest bits
    taylor = (1.540353e-4, 1.3333558e-3, 9.618129e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0)

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:  # noqa: ANN401
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
